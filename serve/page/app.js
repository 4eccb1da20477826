// Starts the page: its colours, its key, and the parts that ask and show.
import {apiKey, events, listModels} from "/page/api.js";
import {startAsking} from "/page/asking.js";
import {showMemory, startDocuments} from "/page/documents.js";
import {byId, say, sayError} from "/page/dom.js";
import {watchJobs} from "/page/jobs.js";
import {startUpload} from "/page/upload.js";
import {startViewer} from "/page/viewer.js";

const THEME = "fovea-theme";

function startTheme() {
  const select = byId("theme");
  const show = () => {
    document.documentElement.dataset.theme = select.value;
  };
  select.value = localStorage.getItem(THEME) ?? "";
  show();
  select.addEventListener("change", () => {
    localStorage.setItem(THEME, select.value);
    show();
  });
}

async function showAll() {
  try {
    byId("model").textContent = (await listModels()).data[0].id;
    await showMemory();
    await watchJobs();
  } catch (error) {
    // That a key is wanted is said by its dialog.
    if (error.status !== 401) sayError(error);
  }
}

// What of a text cannot be in a key: keys are of ASCII, and of others a browser cannot send all.
function strangeCharacter(key) {
  return [...key].find((character) => character < "!" || character > "~");
}

function startKey() {
  const dialog = byId("key");
  const open = () => {
    byId("change-key").hidden = false;
    byId("key-value").value = "";
    if (!dialog.open) dialog.showModal();
  };
  byId("change-key").hidden = apiKey.get() === "";
  byId("change-key").addEventListener("click", open);
  events.addEventListener("key-wanted", () => {
    byId("key-hint").textContent = apiKey.get() === ""
        ? "This tab remembers it until it is closed."
        : "The server does not know the key that it was sent.";
    open();
  });
  byId("key-cancel").addEventListener("click", () => dialog.close());
  const field = byId("key-value");
  field.addEventListener("input", () => field.setCustomValidity(""));
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = field.value.trim();
    const strange = strangeCharacter(key);
    if (strange !== undefined) {
      field.setCustomValidity(
          `“${strange}” cannot be in a key: keys are of ASCII letters, digits and signs. ` +
          "Paste it as it stands in the server's file of keys.");
      field.reportValidity();
      return;
    }
    apiKey.set(key);
    dialog.close();
    say("");
    showAll();
  });
}

startTheme();
startKey();
startViewer();
startDocuments();
startUpload();
startAsking();
showAll();
