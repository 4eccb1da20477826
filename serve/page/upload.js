// Files become documents: chosen, or dropped anywhere on the page.
import {upload} from "/page/api.js";
import {byId, count, sayError, size} from "/page/dom.js";
import {WorkRow, watchJob} from "/page/jobs.js";

// Of one request and job: many small files go together, and a large one alone.
const GROUP_BYTES = 16 << 20;
const GROUP_FILES = 100;

function groups(files) {
  const made = [];
  let bytes = Infinity;
  for (const file of files) {
    if (bytes + file.size > GROUP_BYTES || made.at(-1).length === GROUP_FILES) {
      made.push([]);
      bytes = 0;
    }
    made.at(-1).push(file);
    bytes += file.size;
  }
  return made;
}

function addRow(files) {
  const row = new WorkRow(files.length === 1 ? files[0].name : count(files.length, "file"));
  row.show(null, "waiting for the files before");
  return row;
}

async function send(files, row, collection) {
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  row.show(0, `sending ${size(bytes)}`);
  try {
    const job = await upload(files, collection, (share) => row.show(share, `sending ${size(bytes)}`));
    watchJob(job, row);
  } catch (error) {
    row.end(error.message, true);
    sayError(error);
  }
}

async function add(files) {
  const collection = byId("target").value.trim();
  // What waits for its turn is seen from the beginning.
  const waiting = groups(files).map((group) => [group, addRow(group)]);
  for (const [group, row] of waiting) await send(group, row, collection);
}

// A file that cannot be read is a folder: what browsers give of one has no content.
function droppedFiles(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const isFolder = (item) => item.webkitGetAsEntry()?.isDirectory ?? false;
  const n_folders = items.filter(isFolder).length;
  if (n_folders > 0) {
    sayError(new Error(`${count(n_folders, "folder")} left out: drop the files in it, or use ` +
                       "fovea ingest on the server's machine."));
  }
  return items.filter((item) => !isFolder(item)).map((item) => item.getAsFile());
}

export function startUpload() {
  byId("files").addEventListener("change", () => {
    const files = [...byId("files").files];
    byId("files").value = "";  // the same file can be chosen again
    add(files);
  });
  byId("add").addEventListener("submit", (event) => event.preventDefault());
  const bringsFiles = (event) => event.dataTransfer?.types.includes("Files") ?? false;
  document.addEventListener("dragover", (event) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();
    byId("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) byId("drop").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();  // the browser would leave the page for the file
    byId("drop").classList.remove("over");
    add(droppedFiles(event.dataTransfer));
  });
}
