// Lists of passages: the sources of an answer, or what a search has found.
import {element} from "/page/dom.js";
import {splitAtBytes} from "/page/utf8.js";
import {openDocument} from "/page/viewer.js";

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;

function howFound(passage) {
  if (passage.score !== undefined) return `score ${passage.score.toFixed(2)}`;
  if (passage.reread) return "read again for this answer";
  return `${percent(passage.mass)} of the attention`;
}

// An answer's text in parts: what stands before each mark, the mark, …, what is left.
function partsAt(text, marks) {
  const parts = [];
  let offset = 0;  // in bytes, of what is left
  for (const {start, end} of marks) {
    const [before, mark, rest] = splitAtBytes(text, start - offset, end - offset);
    parts.push(before, mark);
    text = rest;
    offset = end;
  }
  return [...parts, text];
}

// An answer's text with its marks as buttons that open their sources.
export function markedText(text, marks, sources) {
  return partsAt(text, marks).map((part, i) => {
    if (i % 2 === 0) return part;
    const {source} = marks[(i - 1) / 2];
    const passage = sources[source - 1];
    return element("button", {type: "button", class: "plain",
                              "aria-label": `Source ${source}, ${passage.title || passage.path}`,
                              click: () => openDocument(passage.document, passage)}, part);
  });
}

// What the model has said: without the marks, and the space before each.
export const withoutMarks = (text, marks) => partsAt(text, marks)
    .filter((part, i) => i % 2 === 0)
    .map((part, i) => i < marks.length ? part.replace(/ $/, "") : part).join("");

// The part of the passage that was looked for.
function part({text, excerpt}) {
  const begins = text.trimStart().startsWith(excerpt.trimStart());
  const ends = text.trimEnd().endsWith(excerpt.trimEnd());
  return `${begins ? "" : "… "}${excerpt.trim()}${ends ? "" : " …"}`;
}

export function passageList(passages, name) {
  return element("ol", {class: "sources", "aria-label": name}, ...passages.map((passage, i) => {
    const title = passage.title || passage.path;
    return element("li", {},
        element("button", {type: "button", class: "plain",
                           "aria-label": `Open source ${i + 1}, ${title}, at the passage`,
                           click: () => openDocument(passage.document, passage)},
                `[${i + 1}] ${title}`),
        element("p", {class: "hint"},
                `${passage.path}, bytes ${passage.start} to ${passage.end}; ${howFound(passage)}`),
        element("p", {class: "excerpt"}, part(passage)));
  }));
}
