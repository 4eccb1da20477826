// What the memory holds: collections, documents, and deleting them.
import {deleteDocument, listCollections, listDocuments} from "/page/api.js";
import {byId, count, element, fillChoices, say, sayError, size} from "/page/dom.js";
import {openDocument} from "/page/viewer.js";

const PAGE = 50;
// Lists of documents, {last: id of its last row, collection}: what comes for another one than these
// is not shown. Until the newest has come the rows are those of one before, and so is what
// "Show more" brings.
let newest = null;
let shown = null;

const nameOf = (document) => document.title || document.source;

function row(document) {
  const name = nameOf(document);
  // Not told to a key that is limited to collections.
  const day = document.ingested_unix_s === null
      ? "" : `; ${new Date(1000 * document.ingested_unix_s).toISOString().slice(0, 10)}`;
  return element("li", {},
      element("button", {type: "button", class: "plain", "aria-label": `Open ${name}`,
                         click: () => openDocument(document.id)}, name),
      element("p", {class: "hint"},
              `${document.source}; ${document.collections.join(", ")}; ` +
              `${count(document.tokens, "token")}, ${size(document.bytes)}${day}`),
      element("button", {type: "button", class: "danger", "aria-label": `Delete ${name}`,
                         click: () => askToDelete(document)}, "Delete"));
}

let doomed = null;  // the document that the dialog asks about

function askToDelete(document) {
  doomed = document;
  byId("delete-title").textContent = `Delete “${nameOf(document)}”?`;
  byId("delete").showModal();
}

async function deleteDoomed() {
  const buttons = byId("delete").querySelectorAll("button");
  for (const button of buttons) button.disabled = true;
  try {
    await deleteDocument(doomed.id);
    byId("delete").close();
    await showMemory();
    say(`Deleted “${nameOf(doomed)}”.`);
  } catch (error) {
    byId("delete").close();
    sayError(error);
  } finally {
    for (const button of buttons) button.disabled = false;
    // The button that opened the dialog is gone with its row.
    byId("memory-title").focus();
  }
}

async function showPage() {
  const list = shown;
  const more = byId("more");
  more.disabled = true;  // one part at a time
  try {
    const page = await listDocuments({limit: PAGE, after: list.last, collection: list.collection});
    if (list === shown) appendPage(page);
  } finally {
    if (list === shown) more.disabled = false;
  }
}

function appendPage({data, has_more}) {
  byId("documents").append(...data.map(row));
  shown.last = data.at(-1)?.id ?? shown.last;
  byId("more").hidden = !has_more;
}

// Shows it anew, from its first documents on.
export async function showMemory() {
  const list = {last: "", collection: ""};
  newest = list;
  const {data, documents, tokens} = await listCollections();
  if (list !== newest) return;
  const names = data.map((collection) => collection.name);
  fillChoices(byId("scope"), names);
  fillChoices(byId("shown"), names);
  byId("collections").replaceChildren(...names.map((name) => element("option", {value: name})));
  byId("totals").textContent = documents === 0
      ? "The memory is empty: add documents below, then ask."
      : `${count(documents, "document")}, ${count(tokens, "token")}, ` +
        `${count(names.length, "collection")}`;
  list.collection = byId("shown").value;
  shown = list;
  byId("documents").replaceChildren();
  await showPage();
}

export function startDocuments() {
  byId("memory-title").tabIndex = -1;
  byId("shown").addEventListener("change", () => showMemory().catch(sayError));
  byId("more").addEventListener("click", () => showPage().catch(sayError));
  byId("delete-no").addEventListener("click", () => byId("delete").close());
  byId("delete-yes").addEventListener("click", deleteDoomed);
}
