// Two answers to a prompt: which is better, tie, both bad, or skip.
import { commentField, el, fill } from "./desk.js";
import { prompt } from "./rating.js";

const NAMES = { 1: "answer 1", 2: "answer 2", tie: "tie", both_bad: "both bad", skip: "skipped" };

export function told(answer) {
  return el("div", { class: "told" }, el("p", {}, el("b", {}, NAMES[answer.choice]), answer.comment ? `: ${answer.comment}` : ""));
}

export function show(place, item, desk) {
  const { number, prompt: turns, answers } = item.shown;
  const before = item.undone ?? item.mine;
  const begun = desk.draft.get() ?? { comment: before?.comment ?? "" };
  const comment = commentField(begun, () => desk.draft.set(begun));
  fill(place, el("h2", {}, `Item ${number.toLocaleString("en")}: which answer is better?`),
    before ? el("p", { class: "soft" }, `You said: ${NAMES[before.choice]}. Another answer takes its place.`) : null,
    prompt(turns), el("div", { class: "sides" }, answers.map((text, n) => el("div", { class: "part answer" },
      el("p", { class: "label side-name" }, `Answer ${n + 1}`), el("div", { class: "text" }, text || "(empty)")))), comment);
  const choose = (choice) => () => desk.send({ choice, comment: comment.value });
  return [
    { key: "1", label: "Answer 1", run: choose("1") }, { key: "2", label: "Answer 2", run: choose("2") },
    { key: "t", label: "Tie", run: choose("tie") }, { key: "b", label: "Both bad", run: choose("both_bad") },
    { key: "s", label: "Skip", quiet: true, run: choose("skip") }, { key: "c", run: () => comment.focus() },
  ];
}
