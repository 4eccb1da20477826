// The dialog that shows a document, opened at a passage. Of a long document a part is loaded; the
// rest comes when it is asked for.
import {showDocument} from "/page/api.js";
import {byId, element, sayError} from "/page/dom.js";
import {splitAtBytes} from "/page/utf8.js";

const PART_BYTES = 1 << 16;
let newest = 0;  // number of what was opened last: what comes later of one before is not shown

// `passage`: {start, end} in bytes, or null for the beginning.
export async function openDocument(id, passage = null) {
  const text = byId("viewer-text");
  const number = ++newest;
  try {
    const start = Math.max(0, (passage?.start ?? 0) - PART_BYTES);
    const shown = await loadPart(id, start, (passage?.end ?? 0) + PART_BYTES);
    if (number !== newest) return;
    const [before, marked, after] = passage === null
        ? [shown.text, "", ""]
        : splitAtBytes(shown.text, passage.start - shown.start, passage.end - shown.start);
    const mark = element("mark", {id: "passage", tabindex: "-1"}, marked);
    text.replaceChildren(...earlier(id, shown), before, ...(passage ? [mark] : []), after,
                         ...later(id, shown));
    byId("viewer-title").textContent = shown.title || shown.source;
    byId("viewer-place").textContent = passage === null
        ? shown.source
        : `${shown.source}, bytes ${passage.start} to ${passage.end} are marked`;
    if (!byId("viewer").open) byId("viewer").showModal();
    text.scrollTop = 0;
    if (passage !== null) {
      mark.scrollIntoView({block: "center"});
      mark.focus({preventScroll: true});
    }
  } catch (error) {
    sayError(error);
  }
}

// The document's record with a part of its text. The server wants an end within the document, which
// is not known before the first answer.
async function loadPart(id, start, end) {
  const {bytes} = await showDocument(id, {start: 0, end: 0});
  return showDocument(id, {start, end: Math.min(end, bytes)});
}

// A button that puts the part before `shown` in its own place.
function earlier(id, shown) {
  if (shown.start === 0) return [];
  const more = element("button", {type: "button", click: async () => {
    try {
      const start = Math.max(0, shown.start - PART_BYTES);
      const part = await showDocument(id, {start, end: shown.start});
      const text = byId("viewer-text");
      const fromEnd = text.scrollHeight - text.scrollTop;
      more.replaceWith(...earlier(id, part), part.text);
      text.scrollTop = text.scrollHeight - fromEnd;
      text.focus();
    } catch (error) {
      sayError(error);
    }
  }}, "Show what is before");
  return [more];
}

// As `earlier`, behind it.
function later(id, shown) {
  if (shown.end >= shown.bytes) return [];
  const more = element("button", {type: "button", click: async () => {
    try {
      const end = Math.min(shown.bytes, shown.end + PART_BYTES);
      const part = await showDocument(id, {start: shown.end, end});
      more.replaceWith(part.text, ...later(id, part));
      byId("viewer-text").focus({preventScroll: true});
    } catch (error) {
      sayError(error);
    }
  }}, "Show what follows");
  return [more];
}

export function startViewer() {
  byId("viewer-close").addEventListener("click", () => byId("viewer").close());
}
