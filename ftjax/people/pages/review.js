// A row of a data file: its findings, its texts, accept, edit, reject or skip.
import { commentField, el, fill, grow } from "./desk.js";

const NAMES = { accept: "accepted", edit: "edited", reject: "rejected", skip: "skipped" };
const differing = (before, after) => Object.fromEntries(
  after.filter((part, n) => part.at !== null && part.text !== before[n].text).map((part) => [part.at, part.text]));
const alike = (before, after) => before.length === after.length && before.every((part, n) => part.at === after[n].at
  && part.label === after[n].label && (part.at !== null || part.text === after[n].text));

// What somebody said; of an edit, each text that was changed with what stood there.
export function told(answer, shown) {
  const made = el("div", { class: `told ${answer.decision}` }, el("p", {}, el("b", {}, NAMES[answer.decision]),
    answer.comment ? `: ${answer.comment}` : ""));
  if (!shown.edited) return made;
  if (!alike(shown.parts, shown.edited.parts)) {
    made.append(el("pre", {}, shown.edited.json));
    return made;
  }
  const changed = differing(shown.parts, shown.edited.parts);
  for (const part of shown.parts.filter((one) => one.at in changed))
    made.append(el("p", { class: "label" }, part.label), el("div", { class: "two" },
      el("div", { class: "text before" }, part.text), el("div", { class: "text after" }, changed[part.at])));
  return made;
}

export function show(place, item, desk) {
  const { parts, json, refusal, edited, line } = item.shown;
  const begun = desk.draft.get() ?? fromBefore();
  let editing = false;

  function fromBefore() { // an answer that was given before, or taken back, is where to go on
    const made = { comment: "", texts: {}, json: null, editing: false };
    const before = desk.settling ? null : item.undone ?? item.mine;
    if (!before) return made;
    made.comment = before.comment;
    made.editing = Boolean(edited);
    if (edited && alike(parts, edited.parts)) made.texts = differing(parts, edited.parts);
    else if (edited) made.json = edited.json;
    return made;
  }

  const keep = () => desk.draft.set(begun);
  const findings = item.details.findings ?? [];
  const body = el("div", { class: "parts" });
  const comment = commentField(begun, keep);
  const mine = item.mine && !desk.settling ? el("p", { class: "soft" }, `You ${NAMES[item.mine.decision]} this before; another answer takes its place.`) : null;
  fill(place,
    el("h2", {}, `Line ${line.toLocaleString("en")}`), mine,
    refusal ? el("p", { class: "refusal" }, `Training refuses this row: ${refusal}`) : null,
    findings.length ? el("ul", { class: "findings", "aria-label": "Findings" }, findings.map((one) => el("li", { class: one.severity },
      el("b", {}, one.rule), ` (${one.severity}) `, one.message, el("span", { class: "soft" }, ` ${one.suggestion}`)))) : null,
    body, comment);

  function draw(draw_one) {
    const sides = new Map();
    const made = [];
    for (const part of parts) {
      const one = draw_one(part);
      if (!part.side) { made.push(one); continue; }
      if (!sides.has(part.side)) {
        const side = el("div", { class: `side ${part.side}` }, el("p", { class: "label side-name" },
          { better: "better", worse: "worse" }[part.side] ?? `completion ${part.side}`));
        sides.set(part.side, side);
        if (sides.size === 1) made.push(el("div", { class: "sides" }));
        made.find((node) => node.className === "sides").append(side);
      }
      sides.get(part.side).append(one);
    }
    fill(body, ...made);
  }

  function read() {
    editing = false;
    draw((part) => part.at === null
      ? el("p", { class: "fact" }, el("span", { class: "label" }, part.label), " ", part.text)
      : el("div", { class: `part ${part.kind}` }, el("p", { class: "label" }, part.label),
        el("div", { class: "text" }, part.text || "(empty)")));
    desk.again(readingActions());
  }

  function edit(asJson = begun.json !== null) {
    editing = true;
    begun.editing = true;
    if (asJson) {
      begun.json ??= json;
      const field = el("textarea", { class: "json", "aria-label": "The row as JSON", spellcheck: "false",
        oninput: () => { begun.json = field.value; grow(field); keep(); } });
      field.value = begun.json;
      fill(body, field);
      grow(field);
      field.focus({ preventScroll: true });
    } else {
      draw((part) => {
        if (part.at === null) return el("p", { class: "fact" }, el("span", { class: "label" }, part.label), " ", part.text);
        const before = el("details", { class: "soft" }, el("summary", {}, "as it was"), el("div", { class: "text" }, part.text));
        const changed = () => { before.hidden = field.value === part.text; };
        const field = el("textarea", { "aria-label": part.label, rows: "1", oninput: () => {
          if (field.value === part.text) delete begun.texts[part.at];
          else begun.texts[part.at] = field.value;
          grow(field);
          changed();
          keep();
        } });
        field.value = begun.texts[part.at] ?? part.text;
        changed();
        return el("div", { class: `part ${part.kind}` }, el("p", { class: "label" }, part.label), field, before);
      });
      const fields = [...body.querySelectorAll("textarea")];
      fields.forEach(grow);
      const answers = [...body.querySelectorAll(".answer textarea")];
      (answers.at(-1) ?? fields.at(-1))?.focus({ preventScroll: true });
    }
    keep();
    desk.again(editingActions());
  }

  const decide = (decision) => desk.send({ decision, comment: comment.value });

  function save() {
    const changes = begun.json === null ? { texts: begun.texts } : { json: begun.json };
    desk.send({ decision: "edit", comment: comment.value, ...changes });
  }

  function cancel() {
    Object.assign(begun, { texts: {}, json: null, editing: false });
    keep();
    read();
  }

  const toComment = { key: "c", run: () => comment.focus() };
  const readingActions = () => [
    { key: "a", label: "Accept", run: () => decide("accept") }, { key: "e", label: "Edit", run: () => edit() },
    { key: "r", label: "Reject", run: () => decide("reject") },
    ...(desk.settling ? [] : [{ key: "s", label: "Skip", quiet: true, run: () => decide("skip") }]), toComment,
  ];
  const editingActions = () => [
    { key: "Ctrl+Enter", shownKey: "Ctrl ⏎", label: "Save edit", run: save },
    ...(begun.json === null ? [{ key: "j", label: "As JSON", quiet: true, run: () => edit(true) }] : []),
    { key: "Escape", shownKey: "Esc Esc", label: "Do not edit", quiet: true, run: cancel }, toComment,
  ];
  if (begun.editing) edit();
  else read();
  return editing ? editingActions() : readingActions();
}
