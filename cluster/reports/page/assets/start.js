// Starts the page when its scripts are loaded.
"use strict";
document.documentElement.classList.add("scripted");
window.report.mountTable();
if (window.report.mountViewer) window.report.mountViewer();
if (window.report.goLive) window.report.goLive();
window.report.followAddress(window.report.restoreTable);
