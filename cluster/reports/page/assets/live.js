// A live page: fetches the sections from its server every few seconds and replaces those that have changed. It keeps what
// the reader did.
"use strict";
(() => {
  const PAUSE_MS = 3000;
  const KEPT = "details, .scroll, pre"; // elements that open or scroll

  // The server's text of each section and of the table of contents, before scripts changed it.
  const sectionsOf = (root) => new Map([...root.children].map((section) => [section.id, section.outerHTML]));

  // Identifies an element that opens or scrolls, by its place and its name.
  function nameOf(part) {
    const error = part.matches("pre + details") ? part.previousElementSibling.textContent : "";
    const own = part.ariaLabel ?? (part.querySelector("summary") ?? part).textContent;
    return [part.closest("tr.opened, main > *").id, error, own].join("\n");
  }

  // Changes the page without moving the text that is being read: the topmost element in the window, or an opened
  // combination rather than its section.
  function inPlace(change) {
    const parts = [...document.querySelectorAll(".scroll:not(.long) tr.opened"), ...document.querySelector("main").children];
    const boxes = parts.map((part) => [part.id, part.getBoundingClientRect()]);
    const seen = boxes.filter(([, box]) => box.bottom > 0 && box.top < window.innerHeight);
    change();
    const [id, box] = seen.find(([id]) => document.getElementById(id)) ?? [];
    if (!id || window.scrollY === 0) return;
    const moved = document.getElementById(id).getBoundingClientRect().top - box.top;
    if (moved) window.scrollBy({ top: moved, behavior: "instant" });
  }

  function goLive(known) {
    const { mountTable, mountViewer, element, say } = window.report;
    const main = document.querySelector("main");
    const status = element("p", { id: "live" });
    document.querySelector("header").append(status);
    let tag = "";
    document.documentElement.style.overflowAnchor = "none"; // otherwise the browser would scroll in addition to `inPlace`

    function fill(text) {
      const fresh = new DOMParser().parseFromString(text, "text/html");
      const texts = sectionsOf(fresh.body);
      const changed = [...texts.keys()].filter((id) => texts.get(id) !== known.get(id));
      const focused = document.activeElement;
      const kept = { id: focused.id, start: focused.selectionStart, end: focused.selectionEnd };
      const states = new Map([...main.querySelectorAll(KEPT)].map((part) => [nameOf(part), {
        open: part.open, left: part.scrollLeft, top: part.scrollTop,
        isFocused: part === focused || (focused.matches("summary") && part === focused.parentElement),
      }]));
      for (const section of [...main.children]) if (!texts.has(section.id)) section.remove();
      [...fresh.body.children].forEach((section, place) => {
        const old = document.getElementById(section.id);
        if (old && !changed.includes(section.id)) return;
        const made = document.importNode(section, true);
        if (old) old.replaceWith(made);
        else main.insertBefore(made, main.children[place] ?? null);
      });
      if (changed.includes("combinations")) mountTable();
      if (changed.includes("examples")) mountViewer();
      for (const part of changed.flatMap((id) => [...document.getElementById(id).querySelectorAll(KEPT)])) {
        const state = states.get(nameOf(part));
        if (!state) continue;
        if (part.matches("details")) part.open = state.open;
        [part.scrollLeft, part.scrollTop] = [state.left, state.top];
        if (state.isFocused) (part.querySelector("summary") ?? part).focus({ preventScroll: true });
      }
      const again = kept.id && document.getElementById(kept.id);
      if (again && again !== document.activeElement) {
        again.focus({ preventScroll: true });
        if (again.type === "search") again.setSelectionRange(kept.start, kept.end);
      }
      if (changed.includes("summary")) say(document.getElementById("progress").textContent);
      known = texts;
    }

    function showStatus(text, isLost) {
      status.textContent = text;
      status.classList.toggle("lost", isLost);
    }

    async function ask() {
      try {
        const answer = await fetch("content", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
        const text = await answer.text();
        if (answer.status !== 200 && answer.status !== 304) throw new Error(text);
        inPlace(() => {
          if (answer.status === 200) fill(text);
          showStatus(`Live, as of ${new Date().toLocaleTimeString()}`, false);
        });
        tag = answer.headers.get("ETag");
      } catch (error) {
        const reason = error instanceof TypeError ? "its server does not respond" : error.message;
        inPlace(() => showStatus(`Not live: ${reason}. The page shows the last state that it received.`, true));
      }
      setTimeout(ask, PAUSE_MS);
    }
    setTimeout(ask, PAUSE_MS);
  }

  // Read now, before other scripts change the sections.
  const served = sectionsOf(document.querySelector("main"));
  window.report.goLive = () => goLive(served);
})();
