"use strict";
(() => {
  const root = document.documentElement;
  const rows = [...document.querySelectorAll("#list > .row")];
  const search = document.getElementById("search");
  const clear = document.getElementById("clear");
  const chosen = { state: new Set(), level: new Set(), area: new Set() };
  const haystacks = rows.map((row) => (row.querySelector("summary").textContent + " " + row.dataset.text).toLowerCase());
  root.classList.add("js");

  function apply() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      const fits = Object.entries(chosen).every(([name, values]) => !values.size || values.has(row.dataset[name]));
      row.hidden = !(fits && words.every((word) => haystacks[index].includes(word)));
      shown += !row.hidden;
    });
    const narrowed = words.length || Object.values(chosen).some((values) => values.size);
    document.getElementById("count").textContent = narrowed ? `${shown} of ${rows.length}` : rows.length;
    document.getElementById("none").hidden = shown > 0;
    clear.hidden = !narrowed;
    for (const chip of document.querySelectorAll(".filters [aria-pressed]")) {
      const [name, value] = Object.entries(chip.dataset)[0];
      chip.setAttribute("aria-pressed", chosen[name].has(value));
    }
  }

  function reset() {
    search.value = "";
    Object.values(chosen).forEach((values) => values.clear());
    apply();
  }

  /** Shows one value only, from outside of the filters. */
  function only(name, values) {
    reset();
    values.forEach((value) => chosen[name].add(value));
    apply();
    document.getElementById("requirements").scrollIntoView();
  }

  function open(id) {
    const target = document.getElementById(id);
    const row = target && target.closest(".row");
    if (!row) return;
    if (row.hidden) reset();
    row.open = target.open = true;
    target.scrollIntoView({ block: "start" });
    target.querySelector("summary").focus({ preventScroll: true });
  }

  function move(step) {
    const visible = rows.filter((row) => !row.hidden);
    const at = visible.indexOf(document.activeElement.closest(".row"));
    const next = visible[Math.min(Math.max(at + step, 0), visible.length - 1)];
    if (next) next.querySelector("summary").focus();
  }

  function theme() {
    const dark = getComputedStyle(root).colorScheme === "dark";
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("podid-theme", root.dataset.theme); } catch { /* a file may have no storage */ }
  }
  try { root.dataset.theme = localStorage.getItem("podid-theme") || ""; } catch { /* see above */ }

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-state], [data-level], [data-area], [data-clear], #clear, #theme");
    if (!target || target.classList.contains("row")) return;
    if (target.id === "theme") return theme();
    if (target.id === "clear" || "clear" in target.dataset) return reset();
    const [name, value] = Object.entries(target.dataset)[0];
    if (target.closest(".filters")) {
      if (!chosen[name].delete(value)) chosen[name].add(value);
      apply();
    } else {
      event.preventDefault();
      only(name, [value]);
    }
  });
  search.addEventListener("input", apply);
  search.form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", () => open(decodeURIComponent(location.hash.slice(1))));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { reset(); search.blur(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === search) return;
    const actions = {
      "/": () => search.focus(),
      j: () => move(1),
      k: () => move(-1),
      f: () => only("state", ["failed", "error", "could-not-run", "expected-failure", "flaky"]),
      t: theme,
    };
    if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
  });
  open(decodeURIComponent(location.hash.slice(1)));
})();
