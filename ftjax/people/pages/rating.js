// An answer to a prompt: from 1 to 5 on each axis, in words; or skip.
import { commentField, el, fill } from "./desk.js";

// The turns of a prompt; also of the page of preferences.
export function prompt(turns) {
  const named = ({ role }) => (turns.length === 1 ? "Prompt" : role[0].toUpperCase() + role.slice(1));
  return turns.map((turn) => el("div", { class: "part" }, el("p", { class: "label" }, named(turn)),
    el("div", { class: "text" }, turn.content || "(empty)")));
}

export function told(answer) {
  const said = answer.scores ? Object.entries(answer.scores).map(([name, score]) => `${name} ${score}`).join(", ") : "skipped";
  return el("div", { class: "told" }, el("p", {}, el("b", {}, said), answer.comment ? `: ${answer.comment}` : ""));
}

export function show(place, item, desk) {
  const { axes } = item.setting;
  const { number, prompt: turns, answer } = item.shown;
  const before = item.undone ?? item.mine;
  const begun = desk.draft.get() ?? { scores: { ...before?.scores }, comment: before?.comment ?? "" };
  let at = Math.max(axes.findIndex((axis) => !(axis.name in begun.scores)), 0);
  const keep = () => desk.draft.set(begun);

  const groups = axes.map((axis, n) => {
    const id = `axis-${n}`;
    const buttons = axis.steps.map((words, step) => el("button", { class: "step", role: "radio", type: "button",
      onclick: () => score(n, step + 1) }, el("b", {}, step + 1), " ", words));
    return { axis, buttons, node: el("section", { class: "axis", role: "radiogroup", "aria-labelledby": id },
      el("h3", { id }, axis.name, el("span", { class: "soft" }, ` ${axis.asks}`)), el("div", { class: "steps" }, buttons)) };
  });

  function draw() {
    groups.forEach(({ axis, buttons, node }, n) => {
      node.classList.toggle("current", n === at);
      buttons.forEach((button, step) => button.setAttribute("aria-checked", String(begun.scores[axis.name] === step + 1)));
    });
  }

  function go(n) {
    at = Math.min(Math.max(n, 0), axes.length - 1);
    draw();
    groups[at].node.scrollIntoView({ block: "nearest" });
  }

  function score(n, value) {
    begun.scores[axes[n].name] = value;
    keep();
    const open = axes.findIndex((axis) => !(axis.name in begun.scores));
    go(open === -1 ? n + 1 : open);
    if (open === -1) desk.tell("Every axis has its number; Enter keeps them.");
  }

  function send() {
    const button = document.activeElement?.closest("button");
    const open = axes.findIndex((axis) => !(axis.name in begun.scores));
    const answers = button?.dataset.key === "Enter" || (button?.classList.contains("step") && open === -1);
    if (button && !answers) button.click(); // Enter on a button is that button
    else if (open === -1) desk.send({ scores: begun.scores, comment: comment.value });
    else {
      go(open);
      desk.tell(`${axes[open].name} has no number yet; 1 to 5, or skip the item.`);
    }
  }

  const comment = commentField(begun, keep);
  fill(place, el("h2", {}, `Item ${number.toLocaleString("en")}`),
    item.mine && !item.undone ? el("p", { class: "soft" }, "You answered this before; another answer takes its place.") : null,
    prompt(turns), el("div", { class: "part answer" }, el("p", { class: "label" }, "Answer"),
      el("div", { class: "text" }, answer || "(empty)")), groups.map(({ node }) => node), comment);
  draw();
  return [
    { key: "Enter", shownKey: "⏎", label: "Keep", run: send },
    { key: "s", label: "Skip", quiet: true, run: () => desk.send({ scores: null, comment: comment.value }) },
    ...[1, 2, 3, 4, 5].map((value) => ({ key: String(value), run: () => score(at, value) })),
    { key: "ArrowDown", run: () => go(at + 1) }, { key: "ArrowUp", run: () => go(at - 1) },
    { key: "c", run: () => comment.focus() },
  ];
}
