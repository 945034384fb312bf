// What every view uses: elements whose texts stay text, fields, requests that are sent until they are answered, drafts.

// Returns an element; children are elements or texts, and a text never becomes markup.
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  return fill(made, ...children);
}

// Puts children (elements, texts, lists of them; null is nothing) in the place of what an element holds, and returns it.
export function fill(place, ...children) {
  place.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return place;
}

// Makes a field as high as its text.
export function grow(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

// A field for a comment that keeps its text in `begun`.
export function commentField(begun, keep) {
  const field = el("textarea", { id: "comment", rows: "1", maxlength: "10000", "aria-label": "Comment",
    placeholder: "Comment (c)", oninput: () => { begun.comment = field.value; grow(field); keep(); } });
  field.value = begun.comment;
  requestAnimationFrame(() => grow(field));
  return field;
}

export function key() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const visit = {
  get token() { return sessionStorage.getItem("token"); },
  set token(value) { value === null ? sessionStorage.removeItem("token") : sessionStorage.setItem("token", value); },
};

// What a rater has begun: kept in this tab until the answer is acknowledged. The name says of what and whose it is:
// another file may be served at the same address later, and another rater may sit down at the same tab.
export function draft(name) {
  return {
    get: () => JSON.parse(sessionStorage.getItem(name) ?? "null"),
    set: (value) => sessionStorage.setItem(name, JSON.stringify(value)),
    drop: () => sessionStorage.removeItem(name),
  };
}

export class Refused extends Error {
  constructor(text, status) { super(text); this.status = status; }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Returns what the server answers. While it does not, it is asked again, and `waiting` is told; a body has a key
// where doing it twice would be wrong.
export async function ask(path, body, waiting) {
  for (let tries = 0; ; tries++) {
    let reply;
    try {
      reply = await fetch(path, {
        method: body === undefined ? "GET" : "POST",
        headers: {
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...(visit.token ? { authorization: `Bearer ${visit.token}` } : {}),
        },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch {
      waiting("The server does not answer. What you wrote is kept here; trying again …");
      await pause(Math.min(500 * (tries + 1), 3000));
      continue;
    }
    if (reply.status === 503 || reply.status === 500) {
      const told = await reply.json().catch(() => ({}));
      waiting(`${told.error ?? "The server failed"}. What you wrote is kept here; trying again …`);
      await pause(Math.min(500 * (tries + 1), 3000));
      continue;
    }
    waiting("");
    const told = await reply.json();
    if (!reply.ok) throw new Refused(told.error, reply.status);
    return told;
  }
}
