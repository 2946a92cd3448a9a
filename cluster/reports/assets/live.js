// A live page: asks its server for the sections every few seconds and replaces those that have changed, keeping what the
// reader did.
"use strict";
(() => {
  const PAUSE_MS = 3000;

  // The server's text of each section, as it was before scripts changed it.
  function sectionsOf(root) {
    return new Map([...root.querySelectorAll("section")].map((section) => [section.id, section.outerHTML]));
  }

  function goLive(known) {
    const { mountTable, mountViewer, element, say } = window.report;
    const main = document.querySelector("main");
    const status = element("p", { id: "live" });
    document.querySelector("header").append(status);
    let tag = "";

    function fill(text) {
      const fresh = new DOMParser().parseFromString(text, "text/html");
      const texts = sectionsOf(fresh);
      const changed = [...texts.keys()].filter((id) => texts.get(id) !== known.get(id));
      const focused = document.activeElement;
      const kept = { id: focused?.id, start: focused?.selectionStart, end: focused?.selectionEnd };
      const opened = new Set([...main.querySelectorAll("section details[open]")].map(nameOf));
      const scrolled = new Map([...main.querySelectorAll("section > .scroll")].map((box) => [box.ariaLabel, box.scrollTop]));
      for (const section of [...main.children]) if (!texts.has(section.id)) section.remove();
      [...fresh.body.children].forEach((section, place) => {
        const old = document.getElementById(section.id);
        if (old && !changed.includes(section.id)) return;
        const made = document.importNode(section, true);
        for (const details of made.querySelectorAll("details")) details.open ||= opened.has(nameOf(details));
        if (old) old.replaceWith(made);
        else main.insertBefore(made, main.children[place] ?? null);
      });
      if (changed.includes("combinations")) mountTable();
      if (changed.includes("examples")) mountViewer();
      for (const box of main.querySelectorAll("section > .scroll")) box.scrollTop = scrolled.get(box.ariaLabel) ?? 0;
      const again = kept.id && document.getElementById(kept.id);
      if (again && again !== document.activeElement) {
        again.focus({ preventScroll: true });
        if (again.type === "search") again.setSelectionRange(kept.start, kept.end);
      }
      if (changed.includes("summary")) say(document.getElementById("progress").textContent);
      known = texts;
    }

    async function ask() {
      try {
        const answer = await fetch("content", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
        if (answer.status === 200) {
          tag = answer.headers.get("ETag");
          fill(await answer.text());
        } else if (answer.status !== 304) {
          throw new Error(await answer.text());
        }
        status.textContent = `Live, as of ${new Date().toLocaleTimeString()}`;
        status.classList.remove("lost");
      } catch (error) {
        const reason = error instanceof TypeError ? "its server does not answer" : error.message;
        status.textContent = `Not live: ${reason}. The page shows what was there before.`;
        status.classList.add("lost");
      }
      setTimeout(ask, PAUSE_MS);
    }
    setTimeout(ask, PAUSE_MS);
  }

  const nameOf = (details) => `${details.closest("section").id}/${details.querySelector("summary").textContent}`;

  // Taken now, before other scripts change the sections.
  const served = sectionsOf(document);
  window.report.goLive = () => goLive(served);
})();
