// The server's API: requests with the key where there is one, errors as exceptions, answers as they
// come. Knows nothing of the page.

const KEY = "fovea-api-key";

// An error that the server has answered with; status 0: it could not be reached.
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Of this tab; it is gone when that is closed.
export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

// Emits "key-wanted" where the server did not know the key of a request.
export const events = new EventTarget();

function headers() {
  return apiKey.get() ? {Authorization: `Bearer ${apiKey.get()}`} : {};
}

// The error that a response of this status and body is.
function toError(status, body) {
  if (status === 401) events.dispatchEvent(new Event("key-wanted"));
  let message = `The server answered with status ${status}.`;
  try {
    message = JSON.parse(body).error.message;
  } catch {
    // Something between the server and the page has answered.
  }
  return new ServerError(status, message);
}

const unreachable = () => new ServerError(0, "The server cannot be reached: is it still running?");

async function request(method, path, {json, signal} = {}) {
  let response;
  try {
    response = await fetch(path, {method, headers: headers(), signal, cache: "no-store",
                                  body: json === undefined ? undefined : JSON.stringify(json)});
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
  if (!response.ok) throw toError(response.status, await response.text());
  return response;
}

const getJson = async (path) => (await request("GET", path)).json();

// {name: value} as a query, without what is undefined or empty.
function query(fields) {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined && value !== "");
  return given.length > 0 ? `?${new URLSearchParams(given)}` : "";
}

export const listModels = () => getJson("/v1/models");
export const listCollections = () => getJson("/v1/collections");
export const listDocuments = (fields) => getJson(`/v1/documents${query(fields)}`);
export const showDocument = (id, range) =>
    getJson(`/v1/documents/${encodeURIComponent(id)}${query(range)}`);
export const deleteDocument = (id) => request("DELETE", `/v1/documents/${encodeURIComponent(id)}`);
export const listJobs = () => getJson("/v1/jobs");
export const showJob = (id) => getJson(`/v1/jobs/${encodeURIComponent(id)}`);
export const cancelJob = (id) => request("DELETE", `/v1/jobs/${encodeURIComponent(id)}`);
export const search = async (body) => (await request("POST", "/v1/search", {json: body})).json();

// The objects of a stream of server-sent events, as they come.
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return;
      text += value;
      const whole = text.split("\n\n");
      text = whole.pop();
      for (const event of whole) {
        const data = event.replace(/^data: /, "");
        if (data !== "[DONE]") yield JSON.parse(data);
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

// Asks. `onText` gets the pieces of the answer; returns the stream's last object, with the sources.
export async function complete(body, {signal, onText}) {
  const response =
      await request("POST", "/v1/chat/completions", {json: {...body, stream: true}, signal});
  let last = null;
  try {
    for await (const event of readEvents(response.body)) {
      // The status was sent before this could be known.
      if (event.error) throw new ServerError(500, event.error.message);
      onText(event.choices[0]?.delta?.content ?? "");
      if (event.choices[0]?.finish_reason) last = event;
    }
  } catch (error) {
    throw error instanceof TypeError ? unreachable() : error;
  }
  if (last === null) throw new ServerError(0, "The answer broke off.");
  return last;
}

// Sends files; `onProgress` gets the share that is sent, from 0 to 1. Returns the job. (fetch does not
// tell how much is sent.)
export function upload(files, collection, onProgress) {
  const form = new FormData();
  if (collection) form.append("collection", collection);
  for (const file of files) form.append("file", file, file.name);
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", "/v1/documents");
    for (const [name, value] of Object.entries(headers())) sending.setRequestHeader(name, value);
    sending.upload.addEventListener("progress", (event) => onProgress(event.loaded / event.total));
    sending.addEventListener("error", () => reject(unreachable()));
    sending.addEventListener("load", () => {
      if (sending.status === 202) {
        resolve(JSON.parse(sending.responseText));
      } else {
        reject(toError(sending.status, sending.responseText));
      }
    });
    sending.send(form);
  });
}
