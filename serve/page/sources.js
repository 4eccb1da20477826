// Lists of passages: the sources of an answer, or what a search has found.
import {element} from "/page/dom.js";
import {openDocument} from "/page/viewer.js";

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;

function howFound(passage) {
  if (passage.score !== undefined) return `score ${passage.score.toFixed(2)}`;
  if (passage.reread) return "read again for this answer";
  return `${percent(passage.mass)} of the attention`;
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
        element("p", {class: "excerpt"}, passage.text.trim()));
  }));
}
