// Everything works without this file; it only keeps a form from being sent twice and asks before a cancellation.
"use strict";

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.ask && !window.confirm(form.dataset.ask)) {
    event.preventDefault();
    return;
  }
  if ("once" in form.dataset) {
    form.querySelectorAll("button").forEach((button) => { button.disabled = true; });
  }
});

// A page that comes back from the history must be usable again.
window.addEventListener("pageshow", () => {
  document.querySelectorAll("form[data-once] button").forEach((button) => { button.disabled = false; });
});
