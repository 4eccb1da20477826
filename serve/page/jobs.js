// What is being done to the memory: a row for each upload and job, with its progress.
import {cancelJob, listJobs, showJob} from "/page/api.js";
import {byId, count, element, say, sayError} from "/page/dom.js";
import {showMemory} from "/page/documents.js";

const LOOK_MS = 300;
const hasEnded = (job) => job.state !== "waiting" && job.state !== "running";
const watched = new Set();  // ids

// A row with a name; `what` says how far it is, which `share` draws (null: nobody knows).
export class WorkRow {
  constructor(name) {
    this.name = name;
    this.bar = element("progress", {"aria-label": name, max: "1"});
    this.what = element("p", {class: "hint"});
    this.cancel = element("button", {type: "button", hidden: true, "aria-label": `Cancel ${name}`},
                          "Cancel");
    this.item = element("li", {}, element("p", {}, name), this.bar, this.what, this.cancel);
    byId("jobs").prepend(this.item);
  }

  show(share, what) {
    if (share === null) {
      this.bar.removeAttribute("value");
    } else {
      this.bar.value = share;
    }
    this.what.textContent = what;
  }

  end(what, failed = false) {
    this.bar.remove();
    this.cancel.remove();
    this.what.textContent = what;
    this.what.classList.toggle("failed", failed);
    this.item.append(element("button", {type: "button", "aria-label": `Dismiss ${this.name}`,
                                        click: () => this.item.remove()}, "Dismiss"));
  }
}

const jobName = (job) => job.kind === "rebuild"
    ? "Rebuild of the indexes"
    : job.files.length === 1 ? job.files[0].name : count(job.files.length, "file");

function showProgress(row, {state, progress}) {
  if (state === "waiting") return row.show(null, "waiting for the jobs before it");
  const {stage, done, total, unit, files, files_done} = progress;
  const far = total > 0 ? `${done} of ${total} ${unit}` : "";
  const of = files > 1 ? `file ${Math.min(files_done + 1, files)} of ${files}` : "";
  row.show(total > 0 ? Math.min(done / total, 1) : null,
           [stage || "running", far, of].filter((part) => part !== "").join(", "));
}

function showEnd(row, job) {
  const name = jobName(job);
  if (job.state === "cancelled") {
    row.end("cancelled; what was stored by then stays");
    return say(`Cancelled: ${name}.`);
  }
  // Those of a job whose documents all failed are its own error, too.
  const errors = (job.documents ?? [])
      .filter((document) => document.error !== "" && !job.error?.includes(document.error))
      .map((document) => document.error.startsWith(document.source)
          ? document.error : `${document.source}: ${document.error}`);
  const problems = [job.error, ...errors, ...(job.warnings ?? [])].filter(Boolean);
  const counts = Object.entries(job.counts ?? {}).map(([what, n]) => `${n} ${what}`);
  row.end([job.state, ...counts, ...problems].join("; "), problems.length > 0);
  if (problems.length > 0) return sayError(new Error(`${name}: ${problems[0]}`));
  say(`Done: ${name}.`);
}

const pause = () => new Promise((resolve) => setTimeout(resolve, LOOK_MS));

// Follows a job until it has ended. `row`: of the upload that it came from.
export async function watchJob(job, row = new WorkRow(jobName(job))) {
  if (watched.has(job.id)) return;
  watched.add(job.id);
  row.cancel.hidden = false;
  row.cancel.addEventListener("click", () => cancelJob(job.id).catch(sayError));
  try {
    for (; !hasEnded(job); job = await showJob(job.id)) {
      showProgress(row, job);
      await pause();
    }
    await showMemory();
    showEnd(row, job);
  } catch (error) {
    row.end(error.message, true);
    sayError(error);
  } finally {
    watched.delete(job.id);
  }
}

// What others have begun, or this page before it was loaded anew.
export async function watchJobs() {
  for (const job of (await listJobs()).data.reverse()) {
    if (!hasEnded(job)) watchJob(job);
  }
}
