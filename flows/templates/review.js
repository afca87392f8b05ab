// The keys of the review page, and its place in the address, so that a reload keeps it.
const csrKeys = {
  a: "csr-accept", r: "csr-refuse", s: "csr-skip", u: "csr-undo",
  ArrowLeft: "csr-back", ArrowRight: "csr-forth",
};
document.addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  const id = csrKeys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!id || isTyping || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const button = document.getElementById(id);
  if (button && !button.disabled && button.offsetParent !== null) {
    event.preventDefault();
    button.click();
  }
});
window.csrKeepPlace = (place) => {
  const { annotator, response } = JSON.parse(place || "{}");
  const address = new URL(window.location);
  for (const [name, value] of Object.entries({ annotator, response })) {
    if (value) address.searchParams.set(name, value);
    else address.searchParams.delete(name);
  }
  window.history.replaceState(null, "", address);
};
window.csrAskedPlace = () =>
  JSON.stringify(Object.fromEntries(new URL(window.location).searchParams));
