// Questions and their answers. Earlier turns go along with each question until a new conversation.
import {complete, search} from "/page/api.js";
import {byId, count, element, say, sayError} from "/page/dom.js";
import {markedText, passageList, withoutMarks} from "/page/sources.js";

let messages = [];
let running = null;  // AbortController of the answer that comes

function scope() {
  const chosen = byId("scope").value;
  return chosen === "" ? {} : {collections: [chosen]};
}

// What is said of the answer; a field that is left empty has the server's default.
function options() {
  const given = (id) => byId(id).value === "" ? undefined : Number(byId(id).value);
  return {max_tokens: given("max-tokens"), temperature: given("temperature"),
          fovea: {...scope(), reread: given("reread"), marks: true}};
}

function addTurn(question) {
  const answer = element("p", {class: "answer", "aria-busy": "true"});
  const turn = element("article", {}, element("h3", {class: "question"}, question), answer);
  byId("conversation").append(turn);
  turn.scrollIntoView({block: "nearest"});
  return {turn, answer};
}

function setRunning(controller) {
  running = controller;
  byId("stop").hidden = controller === null;
  for (const button of byId("ask").querySelectorAll("button[type=submit], #search, #forget")) {
    button.disabled = controller !== null;
  }
}

// Puts a request whose answer is a turn; `request` gets the turn and a signal that ends it.
async function run(question, request) {
  const {turn, answer} = addTurn(question);
  const field = byId("question");
  field.value = "";
  setRunning(new AbortController());
  try {
    await request(turn, answer, running.signal);
  } catch (error) {
    if (error.name === "AbortError") {
      turn.append(element("p", {class: "hint"}, "Stopped."));
      say("Stopped.");
    } else {
      turn.append(element("p", {class: "failed"}, error.message));
      sayError(error);
      if (field.value === "") field.value = question;
    }
  } finally {
    answer.setAttribute("aria-busy", "false");
    setRunning(null);
    // Where the button that was pressed cannot be pressed any more, nothing has the focus.
    if (document.activeElement === document.body) field.focus();
  }
}

const ask = (question) => run(question, async (turn, answer, signal) => {
  say("Answering…");
  const user = {role: "user", content: question};
  const log = byId("conversation");
  const onText = (text) => {
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    answer.append(text);
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  };
  const end = await complete({messages: [...messages, user], ...options()}, {signal, onText});
  const text = answer.textContent.trimEnd();
  answer.replaceChildren(...markedText(text, end.fovea_marks, end.fovea_sources));
  messages.push(user, {role: "assistant", content: withoutMarks(text, end.fovea_marks)});
  const notes = [...end.fovea_notes];
  if (end.fovea_finish_reason === "length") notes.push("The answer has reached its longest length.");
  turn.append(...notes.map((note) => element("p", {class: "hint"}, note)));
  if (end.fovea_sources.length > 0) turn.append(passageList(end.fovea_sources, "Sources"));
  say(`Answered, with ${count(end.fovea_sources.length, "source")}.`);
});

const find = (query) => run(query, async (turn, answer) => {
  const found = await search({query, ...scope()});
  answer.textContent = `${count(found.data.length, "passage")}.`;
  turn.append(passageList(found.data, "Passages"));
  say(`Found ${count(found.data.length, "passage")}.`);
});

function stop() {
  running?.abort();
}

export function startAsking() {
  const form = byId("ask");
  const question = byId("question");
  // Calls `use` with the question, once there is one and no other is being answered.
  const put = (use) => {
    if (running === null && form.reportValidity() && question.value.trim() !== "") {
      use(question.value.trim());
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    put(ask);
  });
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      put(ask);
    }
  });
  document.addEventListener("keydown", (event) => {
    // Of an open dialog Escape closes that.
    if (event.key === "Escape" && document.querySelector("dialog[open]") === null) stop();
  });
  // Of a closed part of the form nothing can be pointed at.
  form.addEventListener("invalid", (event) => {
    event.target.closest("details")?.setAttribute("open", "");
  }, true);
  byId("stop").addEventListener("click", stop);
  byId("search").addEventListener("click", () => put(find));
  byId("forget").addEventListener("click", () => {
    messages = [];
    byId("conversation").replaceChildren();
    question.focus();
    say("A new conversation.");
  });
}
