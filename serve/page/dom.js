// Elements of the page. Texts become text nodes and nothing else: what documents and models say is
// never read as HTML.

export const byId = (id) => document.getElementById(id);

// element("p", {class: "hint"}, "text", other): true and false set or leave out an attribute, and a
// function is a listener.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      made.addEventListener(key, value);
    } else if (value === true) {
      made.setAttribute(key, "");
    } else if (value !== false) {
      made.setAttribute(key, value);
    }
  }
  made.append(...children);
  return made;
}

// One announcement at a time, for eyes and screen readers alike; each takes the place of the last.
export function say(text) {
  byId("error").textContent = "";
  byId("status").textContent = text;
}

export function sayError(error) {
  byId("status").textContent = "";
  byId("error").textContent = error.message;
}

// Fills a list of choices behind its first one, and keeps what was chosen where it is still there.
export function fillChoices(select, names) {
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...names.map((name) => element("option", {value: name}, name)));
  select.value = names.includes(chosen) ? chosen : "";
}

const number = new Intl.NumberFormat("en");
export const count = (n, one, many = `${one}s`) => `${number.format(n)} ${n === 1 ? one : many}`;

export function size(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit + 1 < units.length; ++unit) bytes /= 1024;
  return `${number.format(unit === 0 ? bytes : Number(bytes.toPrecision(3)))} ${units[unit]}`;
}
