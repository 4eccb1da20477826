"""A real browser, headless, for tests of the page: Debian's chromium, by WebDriver."""
import json
import os
import shutil
import sys
import tempfile

SKIPPED = 77


def find_programs():
    """The browser and its driver; ends the test as skipped where there is none."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        print("SKIPPED: this test needs chromium and chromedriver "
              "(scripts/install_deps.sh --browser; Ubuntu has them as a snap alone)")
        sys.exit(SKIPPED)
    return browser, driver


class Browser:
    """One browser with a profile of its own. What it asks of the network is recorded."""

    def __init__(self):
        from selenium import webdriver
        from selenium.webdriver.support.ui import WebDriverWait
        browser, driver = find_programs()
        self._folder = tempfile.TemporaryDirectory(prefix="fovea-browser-")
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # Chromium keeps its own calls home to itself; as root it has no sandbox.
        for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage",
                         "--no-first-run", "--disable-background-networking", "--disable-sync",
                         "--window-size=1200,1000", "--lang=en",
                         f"--user-data-dir={self._folder.name}",
                         *(["--no-sandbox"] if os.geteuid() == 0 else [])):
            options.add_argument(argument)
        self.driver = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(executable_path=driver))
        self._wait = WebDriverWait(self.driver, 60, poll_frequency=0.05)
        self._urls = []

    def close(self):
        self.driver.quit()
        self._folder.cleanup()

    def open(self, address):
        self.driver.get(address)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, is_so, message):
        """Until is_so() is true; its result. Elements that vanish meanwhile are looked for again."""
        from selenium.common.exceptions import (NoSuchElementException,
                                                 StaleElementReferenceException)

        def attempt(_):
            try:
                return is_so()
            except (NoSuchElementException, StaleElementReferenceException, IndexError):
                return False
        try:
            return self._wait.until(attempt)
        except Exception as error:
            said = self.run("return document.body.innerText")
            raise AssertionError(f"{message}; the page says:\n{said}\n"
                                 f"console: {self.driver.get_log('browser')}") from error

    def wait_for_text(self, selector, text):
        self.wait(lambda: text in self.one(selector).text, f"{selector} does not say {text!r}")

    def press(self, *keys, held=None):
        """Keys, wherever the focus is; `held` meanwhile."""
        from selenium.webdriver.common.action_chains import ActionChains
        actions = ActionChains(self.driver)
        if held:
            actions.key_down(held)
        actions.send_keys(*keys)
        if held:
            actions.key_up(held)
        actions.perform()

    def focused(self):
        return self.driver.switch_to.active_element

    def prefer(self, scheme):
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def requested(self):
        """The addresses of all requests of pages so far."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._urls.append(message["params"]["request"]["url"])
        return self._urls

    def complaints(self):
        """What the console says of errors, a refused policy among them."""
        return [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
