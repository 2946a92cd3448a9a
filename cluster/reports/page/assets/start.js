// Brings the page to life once its scripts are there.
"use strict";
document.documentElement.classList.add("scripted");
window.report.mountTable();
if (window.report.mountViewer) window.report.mountViewer();
if (window.report.goLive) window.report.goLive();
