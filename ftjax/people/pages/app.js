// The page around a question: name, progress, views, keys. The question itself is shown by the module of its kind.
//
// A kind NAME has NAME.js here, with
//   show(place, item, desk)  fills an empty element; returns the actions [{key, label, run, quiet}] of the bar below.
//     item: {id, shown, setting, mine, details, undone} as the server gives it
//     desk.send(answer)      keeps an answer and goes on to the next item
//     desk.draft             get(), set(value), drop(): what was begun, kept over a reload
//     desk.again(actions)    other actions, for another state of the question
//     desk.tell(text)        a line for the rater
//     desk.settling          whether this is a conflict that is being settled
//   told(answer, shown)      an element that says what somebody answered, for conflicts
// Texts go in by `el` of desk.js, never as markup.
import { ask, draft, el, fill, key, Refused, visit } from "./desk.js";

const head = document.getElementById("head");
const main = document.getElementById("main");
const aside = document.getElementById("aside");
const trouble = document.getElementById("trouble");
const said = document.getElementById("said");

let campaign = null;
let view = "answer";
let actions = [];
let holding = null; // the item that is leased
let busy = false;

const VIEWS = ["answer", "items", "conflicts", "agreement"];
const views = () => (campaign.opinions ? VIEWS.filter((name) => name !== "conflicts") : VIEWS);
const named = (name) => campaign.words[name] ?? name[0].toUpperCase() + name.slice(1);

function waiting(text) {
  trouble.textContent = text;
  trouble.hidden = !text;
}

function tell(text) { said.textContent = text; }

async function call(path, body) {
  const told = await ask(path, body, waiting);
  if (told.progress && campaign) { campaign.progress = told.progress; drawProgress(); }
  return told;
}

// Runs one thing at a time: a key that is pressed twice is one answer.
async function once(run) {
  if (busy) return;
  busy = true;
  try {
    await run();
  } catch (bad) {
    if (!(bad instanceof Refused)) throw bad;
    if (bad.status === 401) { visit.token = null; enter(bad.message); } else tell(bad.message);
  } finally {
    busy = false;
  }
}

const begun = (name) => draft(`draft ${campaign.id} ${campaign.me} ${name}`);

// Coming in

function enter(problem = "", secret = "") {
  campaign = null;
  actions = [];
  fill(head, el("h1", {}, "Who are you?"));
  aside.hidden = true;
  const name = el("input", { id: "name", autocomplete: "name", maxlength: "60", required: true });
  const token = el("input", { id: "token", type: "password", autocomplete: "off" });
  token.value = secret;
  const form = el("form", { class: "enter", onsubmit: (event) => {
    event.preventDefault();
    once(() => begin({ name: name.value, token: token.value }));
  } },
  el("p", {}, "Your answers are kept under your name. Come back under the same name, and you go on where you were."),
  el("label", { for: "name" }, "Name"), name,
  el("label", { for: "token" }, "Token (only if you were given one)"), token,
  el("button", { class: "main" }, "Begin"));
  fill(main, form);
  tell(problem);
  name.focus();
}

async function begin(who) {
  const told = await ask("api/enter", who, waiting);
  visit.token = told.token;
  await start();
}

async function start() {
  campaign = await call("api/campaign");
  document.title = campaign.title;
  aside.hidden = !campaign.guidelines || innerWidth < 1000;
  drawHead();
  drawGuidelines();
  await open("answer");
}

// Around the question

function drawHead() {
  const tabs = views().map((name, n) => el("button", {
    "aria-current": view === name ? "page" : null, title: `Alt+${n + 1}`, onclick: () => once(() => open(name)),
  }, named(name)));
  const guidelines = campaign.guidelines
    ? [el("button", { id: "guide", "aria-expanded": String(!aside.hidden), title: "g", onclick: guide }, "Guidelines")] : [];
  fill(head,
    el("div", { class: "title" }, el("h1", {}, campaign.title), el("span", { class: "me" }, campaign.me, " ",
      el("button", { class: "quiet", onclick: leave }, "leave"))),
    el("nav", {}, ...tabs, ...guidelines, el("button", { title: "?", onclick: () => keys() }, "Keys")),
    el("div", { class: "progress" }, el("progress", { id: "bar", "aria-label": "answers given" }), el("span", { id: "far" })));
  drawProgress();
}

function drawProgress() {
  const far = document.getElementById("far");
  if (!far) return;
  const one = campaign.progress;
  const bar = document.getElementById("bar");
  bar.max = Math.max(one.wanted, 1);
  bar.value = one.answers;
  const skipped = one.passed ? `, ${one.passed} of them skipped` : "";
  far.textContent = `${one.answers.toLocaleString("en")} of ${one.wanted.toLocaleString("en")} answers; `
    + `${one.mine.toLocaleString("en")} by you${skipped}`;
}

function drawGuidelines() {
  const notes = campaign.notes.length ? [el("h3", {}, "About the whole file"), el("ul", {}, campaign.notes.map((one) => el("li", {}, one)))] : [];
  fill(aside, el("h2", {}, "Guidelines"), el("div", { class: "text" }, campaign.guidelines), ...notes);
}

function guide() {
  if (!campaign?.guidelines) return;
  aside.hidden = !aside.hidden;
  document.getElementById("guide").setAttribute("aria-expanded", String(!aside.hidden));
  if (!aside.hidden) aside.scrollIntoView({ block: "nearest" });
}

function leave() {
  visit.token = null;
  holding = null;
  enter();
}

async function open(name) {
  view = name;
  actions = [];
  tell("");
  drawHead();
  if (name === "answer") await following();
  if (name === "items") await items("", "all", 0);
  if (name === "conflicts") await conflicts();
  if (name === "agreement") await agreement();
}

// The question

async function following() {
  const told = await call("api/next");
  if (told.item) return show(told.item);
  holding = null;
  const one = told.progress;
  const rest = one.open
    ? `${one.open.toLocaleString("en")} still want an answer of somebody else.`
    : "Every item has the answers that it wants.";
  fill(main,
    el("h2", { tabindex: "-1" }, "Nothing is left for you"), el("p", {}, rest),
    one.passed ? el("p", {}, `You skipped ${one.passed.toLocaleString("en")}; they are under ${named("items")}, “skipped by me”.`) : null,
    campaign.finish ? el("p", {}, campaign.finish) : null,
    el("p", {}, "Undo (u) brings your last answer back."));
  main.firstChild.focus();
}

async function show(item, undone = null) {
  view = "answer";
  holding = item.id;
  drawHead();
  await question(item, undone, null, (answer) => once(async () => {
    await still(() => call("api/answers", { item: item.id, answer, key: sent(item.id, answer) }));
    waitingKeys.delete(item.id);
    begun(item.id).drop();
    tell("");
    await following();
  }));
}

// The same answer to the same item has the same key, as long as it is not acknowledged: sent twice, it is kept once.
const waitingKeys = new Map();
function sent(item, answer) {
  const what = `${item} ${JSON.stringify(answer)}`;
  if (waitingKeys.get(item)?.what !== what) waitingKeys.set(item, { what, key: key() });
  return waitingKeys.get(item).key;
}

// Nothing can be typed into an answer that is on its way.
async function still(run) {
  main.inert = true;
  try {
    return await run();
  } finally {
    main.inert = false;
  }
}

async function question(item, undone, answers, send) {
  const kind = await import(`./${item.kind}.js`);
  const place = el("article", { class: "item" });
  const bar = el("div", { class: "bar", role: "toolbar", "aria-label": "What to do" });
  const digits = (answers ?? []).map((one, n) => ({ key: String(n + 1), run: () => taken(item, one) }));
  const desk = {
    send: (answer) => { send(answer); },
    draft: begun(answers ? `conflict ${item.id}` : item.id),
    settling: answers !== null,
    tell,
    again: (made) => { actions = [...made, ...digits]; drawBar(bar); },
  };
  const others = answers ? [el("section", { class: "others", "aria-label": "What was answered" },
    el("h3", {}, "What was answered"), answers.map((one, n) => el("div", { class: "other" },
      el("p", {}, el("b", {}, one.rater), one.settles ? " settled it: " : " said: "), kind.told(one.answer, one.shown),
      el("button", { title: String(n + 1), onclick: () => taken(item, one) }, `Take this (${n + 1})`))))] : [];
  fill(main, place, ...others, bar);
  desk.again(kind.show(place, { ...item, undone }, desk));
  window.scrollTo(0, 0);
  main.focus({ preventScroll: true });
}

function drawBar(bar) {
  const made = actions.filter((one) => one.label).map((one) => el("button", {
    class: one.quiet ? "quiet" : "", "data-key": one.key, onclick: one.run,
  }, one.label, el("kbd", {}, one.shownKey ?? one.key)));
  if (view === "answer") made.push(el("button", { class: "quiet", onclick: undo }, "Undo", el("kbd", {}, "u")));
  fill(bar, ...made);
}

function undo() {
  once(async () => {
    const told = await call("api/undo", { key: key() });
    if (told.item === null) return tell("There is nothing to undo.");
    waitingKeys.delete(told.item.id);
    if (told.settled) { await open("conflicts"); return tell("The conflict is open again."); }
    begun(told.item.id).drop();
    await show(told.item, told.undone);
    tell("Your last answer is taken back.");
  });
}

// Lists

const ONLY = [["all", "all"], ["todo", "that I have not answered"], ["mine", "answered by me"], ["skipped", "skipped by me"],
  ["open", "that want answers"], ["flagged", "with findings"]];

async function items(text, only, after) {
  const told = await call(`api/items?text=${encodeURIComponent(text)}&only=${only}&after=${after}`);
  const field = el("input", { type: "search", id: "sought", value: text, placeholder: "Search", "aria-label": "Search" });
  const which = el("select", { "aria-label": "Which" }, ONLY.filter(([name]) => name !== "flagged" || campaign.flagged)
    .map(([name, label]) => el("option", { value: name, selected: name === only }, label)));
  const again = () => once(() => items(field.value, which.value, 0));
  which.addEventListener("change", again);
  const form = el("form", { class: "search", role: "search", onsubmit: (event) => { event.preventDefault(); again(); } },
    field, which, el("button", {}, "Search"));
  const last = after + told.lines.length;
  const more = [];
  if (after > 0) more.push(el("button", { onclick: () => once(() => items(text, only, Math.max(after - told.most, 0))) }, "Earlier"));
  if (last < told.total) more.push(el("button", { onclick: () => once(() => items(text, only, last)) }, "Later"));
  const range = told.total ? `${(after + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${told.total.toLocaleString("en")}` : "None.";
  fill(main, form, el("p", { class: "soft", id: "count" }, range),
    list(told.lines.map((one) => [one, one.mine ? Object.values(one.mine).join(", ") : "",
      one.wanted === undefined ? "" : `${one.counted} of ${one.wanted}`, () => chosen(one.id)])),
    el("div", { class: "more" }, more));
  field.focus();
}

function list(lines) {
  return el("ul", { class: "lines" }, lines.map(([one, mine, far, run]) => el("li", {}, el("button", { onclick: run },
    el("span", { class: "number" }, one.number ?? one.id), el("span", { class: "what" }, one.line || "(no text)"),
    el("span", { class: "mine" }, mine), el("span", { class: "far" }, far)))));
}

function chosen(id) {
  return once(async () => {
    await call("api/lease", { item: id });
    const told = await call(`api/items/${encodeURIComponent(id)}`);
    await show(told.item);
  });
}

// Conflicts

async function conflicts() {
  const told = await call("api/conflicts");
  const text = told.total
    ? `${told.open} of ${told.total} are open. Whoever opens one sees what the others said, and answers it only here from then on.`
    : "Nobody differs on an item that has all its answers.";
  fill(main, el("h2", {}, "Conflicts"), el("p", { class: "soft" }, text),
    list(told.lines.map((one) => [one, "", one.settled ? `settled by ${one.settled}` : "open", () => settle(one.id)])));
  main.querySelector("li button")?.focus();
}

function settle(id) {
  return once(async () => {
    const told = await call("api/conflicts/open", { item: id });
    view = "conflicts";
    holding = null;
    drawHead();
    await question(told.item, null, told.answers, (answer) => settled(id, { answer }));
  });
}

function taken(item, one) { settled(item.id, { take: one.number }); }

function settled(id, how) {
  return once(async () => {
    await still(() => call("api/conflicts/settle", { item: id, ...how, key: sent(`conflict ${id}`, how) }));
    begun(`conflict ${id}`).drop();
    waitingKeys.delete(`conflict ${id}`);
    await open("conflicts");
    tell("Settled.");
  });
}

// Agreement

const number = (value) => (value === null ? "–" : value.toFixed(2));

async function agreement(first = true) {
  const told = await call("api/agreement");
  const parts = told.agreement.map((one) => {
    if (!one.items) return el("section", {}, el("h3", {}, one.label), el("p", {}, "No item has two blind answers yet."));
    const rows = one.pairs.map((pair) => el("tr", {}, el("td", {}, pair.raters.join(" and ")), el("td", {}, pair.items),
      el("td", {}, `${(100 * pair.same).toFixed(0)} %`), el("td", {}, number(pair.kappa)),
      el("td", {}, pair.low === null ? "–" : `${number(pair.low)} to ${number(pair.high)}`)));
    return el("section", {}, el("h3", {}, one.label),
      el("p", {}, `${one.items.toLocaleString("en")} were answered by two or more; on ${(100 * one.same).toFixed(0)} % of them all say the same.`),
      el("dl", {}, el("dt", {}, "Krippendorff's alpha"), el("dd", { id: `alpha-${one.label}` }, number(one.alpha)),
        el("dt", {}, "Fleiss' kappa"), el("dd", {}, number(one.fleiss))),
      el("table", {}, el("thead", {}, el("tr", {}, ["raters", "items", "same", "Cohen's kappa", "95 %"].map((name) => el("th", {}, name)))),
        el("tbody", {}, rows)));
  });
  fill(main, el("h2", { tabindex: "-1" }, named("agreement")), told.news.map((line) => el("p", { class: "news" }, line)),
    el("p", { class: "soft" }, "1 is perfect, 0 is chance; above 0.67 is usable with care, above 0.8 is good (Krippendorff). "
      + "– where all labels are one."), ...parts);
  if (first) main.firstChild.focus();
}

// Keys

function keys() {
  const lines = [...actions.filter((one) => one.label).map((one) => [one.shownKey ?? one.key, one.label]), ["u", "Undo"],
    ["/", "Search"], ["g", "Guidelines"], ["n", "Next to answer"], [`Alt+1 … ${views().length}`, "Views"], ["Esc", "Leave a field"]];
  const box = el("dialog", { "aria-label": "Keys", onclose: () => box.remove() }, el("h2", {}, "Keys"),
    el("dl", { class: "keys" }, lines.map(([name, what]) => [el("dt", {}, el("kbd", {}, name)), el("dd", {}, what)])),
    el("button", { autofocus: true, onclick: () => box.close() }, "Close"));
  document.body.append(box);
  box.showModal();
}

const writes = (target) => target.matches?.("textarea, select, input");

document.addEventListener("keydown", (event) => {
  if (!campaign || document.querySelector("dialog[open]") || event.isComposing) return;
  if (event.altKey && !event.ctrlKey && views()[Number(event.key) - 1]) {
    event.preventDefault();
    once(() => open(views()[Number(event.key) - 1]));
    return;
  }
  const name = (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + event.key;
  const action = actions.find((one) => one.key === name);
  if (writes(event.target) && !name.startsWith("Ctrl+")) {
    if (name === "Escape") { event.preventDefault(); event.target.blur(); }
    return;
  }
  if (event.altKey) return;
  const common = { u: () => (view === "answer" || view === "conflicts") && undo(), "/": () => once(() => open("items")), g: guide, "?": keys,
    n: () => once(() => open("answer")) };
  const run = action?.run ?? common[name];
  if (run) { event.preventDefault(); run(); }
});

// What is held stays held while somebody looks at it.
setInterval(() => {
  if (holding && view === "answer" && visit.token && !document.hidden && !busy)
    ask("api/lease", { item: holding }, () => {}).catch(() => {});
}, 60000);

// What others do shows in the progress, and in the agreement while that is looked at.
setInterval(() => {
  if (!campaign || document.hidden || busy) return;
  if (view === "agreement") once(() => agreement(false));
  else ask("api/campaign", undefined, () => {}).then((told) => { campaign.progress = told.progress; drawProgress(); }, () => {});
}, 5000);

addEventListener("hashchange", () => location.reload()); // a link that is opened in a tab that shows the page already
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  history.replaceState(null, "", location.pathname);
  once(() => begin({ name: "", token: given }).catch((bad) => { // a token of all: it needs a name beside it
    if (!(bad instanceof Refused)) throw bad;
    enter(bad.status === 401 ? bad.message : "", bad.status === 401 ? "" : given);
  }));
} else if (visit.token) once(start);
else enter();
