// What the reader chose in the table and on the axes. The fragment of the page's address keeps it, so that a link shows
// the same view and Back returns to the previous one. The fragment may start with the name of a section.
"use strict";
(() => {
  // The column that sorts the table and its direction, the search, a value for each option, and a range for each axis.
  const chosen = { sort: "", descending: false, search: "", values: {}, ranges: {} };

  function read() {
    const found = new URLSearchParams(location.hash.slice(1));
    const named = (prefix) => Object.fromEntries([...found].filter(([name]) => name.startsWith(prefix))
      .map(([name, value]) => [name.slice(prefix.length), value]));
    const [from, to] = [named("from."), named("to.")];
    Object.assign(chosen, {
      sort: found.get("sort") ?? "", descending: found.get("order") === "descending", search: found.get("search") ?? "",
      values: named("is."),
      ranges: Object.fromEntries(Object.keys(from).filter((name) => name in to).map((name) => [name, [from[name], to[name]]])),
    });
  }

  function written() {
    const found = new URLSearchParams();
    if (chosen.sort) found.set("sort", chosen.sort);
    if (chosen.descending) found.set("order", "descending");
    if (chosen.search) found.set("search", chosen.search);
    for (const [name, value] of Object.entries(chosen.values)) found.set(`is.${name}`, value);
    for (const [name, [from, to]] of Object.entries(chosen.ranges)) {
      found.set(`from.${name}`, from);
      found.set(`to.${name}`, to);
    }
    return found.toString();
  }

  // The section that the fragment names, if any.
  const section = () => {
    const [first] = location.hash.slice(1).split("&");
    return first.includes("=") ? "" : first;
  };

  // Writes what is chosen into the address. With `isStep`, Back returns to what was chosen before.
  function keep(isStep, before = "") {
    const fragment = [before, written()].filter(Boolean).join("&");
    const address = location.href.split("#")[0] + (fragment && `#${fragment}`);
    if (address !== location.href) history[isStep ? "pushState" : "replaceState"]({}, "", address);
  }

  // Calls `changed` whenever Back, Forward or a link changes what is chosen.
  function followAddress(changed) {
    history.replaceState({}, "");
    const place = section();
    if (place && written()) document.getElementById(place)?.scrollIntoView();
    window.addEventListener("popstate", ({ state }) => {
      // Only entries that were made here have a state. Without one, a link led to a section, which changes no choice.
      if (state === null && !location.hash.includes("=")) {
        keep(false, section());
        history.replaceState({}, "");
      } else {
        read();
        changed();
      }
    });
  }

  read();
  Object.assign(window.report, { chosen, keep, followAddress });
})();
