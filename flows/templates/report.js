// The report's pairs: filter, search and paging; and a tree's boxes lead to their sentences.
// Without scripts every pair is there, by iteration, and none of this is missed.
"use strict";
(() => {
  const step = 12;
  const filter = document.getElementById("pair-filter");
  const moving = window.matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";

  const leadToSentences = (svg) => svg.addEventListener("click", (event) => {
    const box = event.target.closest("[data-node]");
    const row = box && document.getElementById(box.dataset.node);
    if (!row) return;
    const list = row.closest("details");
    if (list) list.open = true;
    for (const old of document.querySelectorAll(".pointed")) old.classList.remove("pointed");
    row.classList.add("pointed");
    row.scrollIntoView({ behavior: moving, block: "center" });
  });
  document.querySelectorAll("svg.map").forEach(leadToSentences);
  document.documentElement.classList.add("scripted");
  if (!filter) return;

  const field = (name) => filter.querySelector(`[name="${name}"]`);
  const groups = [...document.querySelectorAll(".pair-group")];
  // What a person or a model wrote, and the id: neither labels nor what is told of marked words.
  const searched = (card) => [...card.querySelectorAll(".said, .told bdi")].map((each) => {
    const copy = each.cloneNode(true);
    copy.querySelectorAll(".unseen, em").forEach((told) => told.remove());
    return copy.textContent;
  }).join(" ");
  const pairs = [...document.querySelectorAll("article.pair")].map((card) => ({
    card,
    text: searched(card).toLowerCase().replace(/\s+/g, " "),
    iteration: card.dataset.iteration,
    source: card.dataset.source,
    margin: Number(card.dataset.margin),
    absent: card.dataset.absent.split(" "),
  }));
  const count = document.getElementById("pair-count");
  const more = document.getElementById("more-pairs");
  let limit = step;

  const hallucinates = {
    any: () => true,
    chosen: (absent) => absent.includes("chosen"),
    rejected: (absent) => absent.includes("rejected"),
    only_rejected: (absent) => absent.includes("rejected") && !absent.includes("chosen"),
    either: (absent) => absent.includes("chosen") || absent.includes("rejected"),
    neither: (absent) => absent.includes("none"),
    unknown: (absent) => absent.includes("unknown"),
  };
  const wanted = () => {
    const words = field("text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const bound = (name, open) => (field(name).value === "" ? open : Number(field(name).value));
    const low = bound("low", -Infinity), high = bound("high", Infinity);
    const is = hallucinates[field("absent").value];
    return (pair) =>
      words.every((word) => pair.text.includes(word)) &&
      ["", pair.iteration].includes(field("iteration").value) &&
      ["", pair.source].includes(field("source").value) &&
      pair.margin >= low && pair.margin <= high && is(pair.absent);
  };
  const show = () => {
    const matching = pairs.filter(wanted());
    const shown = new Set(matching.slice(0, limit).map((pair) => pair.card));
    for (const { card } of pairs) card.hidden = !shown.has(card);
    for (const group of groups) {
      group.hidden = !group.querySelector("article.pair:not([hidden])");
      group.open = !group.hidden;
    }
    const noun = matching.length === 1 ? "pair matches" : "pairs match";
    const those = shown.size < matching.length ? `, the first ${shown.size} are shown` : "";
    count.textContent = `${matching.length} of ${pairs.length} ${noun}${those}.`;
    more.hidden = shown.size === matching.length;
  };
  const anew = () => { limit = step; show(); };

  filter.addEventListener("input", anew);
  document.getElementById("reset-filter").addEventListener("click", () => {
    for (const each of filter.querySelectorAll("input")) each.value = "";
    for (const each of filter.querySelectorAll("select")) each.selectedIndex = 0;
    anew();
  });
  more.addEventListener("click", () => {
    const place = limit;
    limit += 2 * step;
    show();
    const first = pairs.filter(wanted())[place];
    if (first) first.card.focus({ preventScroll: true });
  });
  // On paper nobody can ask for more.
  let limitOnScreen = step;
  window.addEventListener("beforeprint", () => { limitOnScreen = limit; limit = Infinity; show(); });
  window.addEventListener("afterprint", () => { limit = limitOnScreen; show(); });
  filter.hidden = false;
  show();
})();
