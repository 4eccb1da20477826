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
  setDeleteDisabled(false);
  byId("delete-title").textContent = `Delete “${nameOf(document)}”?`;
  byId("delete").showModal();
}

function setDeleteDisabled(disabled) {
  for (const button of byId("delete").querySelectorAll("button")) button.disabled = disabled;
}

// Meanwhile Escape may have closed the dialog, and another document may be asked about.
async function deleteDoomed() {
  const document = doomed;
  setDeleteDisabled(true);
  let failure = null;
  try {
    await deleteDocument(document.id);
  } catch (error) {
    failure = error;
  }
  if (doomed === document) {
    byId("delete").close();
    setDeleteDisabled(false);
    // The button that opened the dialog is gone with its row.
    byId("memory-title").focus();
  }
  try {
    // Somebody else may have deleted it.
    if (failure === null || failure.status === 404) await showMemory();
  } catch (error) {
    failure ??= error;
  }
  if (failure !== null) return sayError(failure);
  say(`Deleted “${nameOf(document)}”.`);
}

async function showPage() {
  const list = shown;
  const more = byId("more");
  more.disabled = true;  // one part at a time
  try {
    const page = await listDocuments({limit: PAGE, after: list.last, collection: list.collection});
    if (list === shown) appendPage(page);
  } catch (error) {
    // The last row's document is gone: what follows it is found by a list from the beginning.
    if (list !== shown || error.status !== 404 || list.last === "") throw error;
    await showMemory();
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
