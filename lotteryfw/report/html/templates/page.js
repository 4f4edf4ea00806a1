"use strict";
// Draws every chart of the page: one view at a time, in the page's colours, with the legend where there is room.
const charts = JSON.parse(document.getElementById("charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const NARROW = 800, LEGEND_ROW = 30, LONG = 36, BOXES = 5; // pixels, pixels, letters, in a row of a phone

// Lists of figures stand once in the page, and traces name them by their place.
function filled(trace, narrow) {
  const full = Object.entries(trace).map(([key, value]) => [key, value?.list === undefined ? value : charts.lists[value.list]]);
  const wrapped = narrow && trace.name?.length > LONG ? { name: trace.name.replaceAll(" · ", " ·<br>") } : {};
  const square = narrow && trace.type === "heatmap" ? { showscale: false, texttemplate: trace.x.length > BOXES ? "" : trace.texttemplate } : {};
  return { ...Object.fromEntries(full), ...wrapped, ...square };
}

function layout(view, traces, narrow) {
  const theme = getComputedStyle(document.documentElement);
  const ink = theme.getPropertyValue("--ink"), line = theme.getPropertyValue("--line");
  const axis = own => ({
    gridcolor: line, linecolor: line, zeroline: false, automargin: true, exponentformat: "none", separatethousands: true,
    ...own, title: { text: own.title, standoff: 8, font: { size: narrow ? 11 : 13 } },
  });
  const named = traces.filter(trace => trace.name).reduce((rows, trace) => rows + trace.name.split("<br>").length, 0);
  return {
    font: { family: "inherit", size: narrow ? 12 : 13, color: ink },
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    xaxis: axis(view.xaxis),
    yaxis: axis(view.yaxis),
    margin: { l: 48, r: 8, t: narrow ? 8 : 36, b: 48 },
    height: narrow ? 360 + LEGEND_ROW * named : Math.max(460, 40 + LEGEND_ROW * named),
    hovermode: "closest",
    hoverlabel: { align: "left" },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger on a chart scrolls the page
    legend: narrow
      ? { itemsizing: "constant", font: { size: 11 }, x: 0, xanchor: "left", y: 0, yref: "container", yanchor: "bottom" }
      : { itemsizing: "constant", x: 1.02, xanchor: "left", y: 1, yanchor: "top" },
    showlegend: true,
    uirevision: "kept", // what a reader has hidden stays hidden in another view
  };
}

function attach(figure) {
  const views = charts.views[figure.dataset.chart], plot = figure.querySelector(".plot"), select = figure.querySelector("select");
  let narrow = figure.clientWidth < NARROW;
  const draw = () => {
    const view = views[select ? select.value : 0], traces = view.traces.map(trace => filled(trace, narrow));
    Plotly.react(plot, traces, layout(view, traces, narrow), {
      responsive: true,
      displaylogo: false,
      displayModeBar: narrow ? false : "hover",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], // and none that sends a chart away
    });
  };
  draw();
  select?.addEventListener("change", draw);
  dark.addEventListener("change", draw);
  addEventListener("resize", () => {
    if (narrow !== figure.clientWidth < NARROW) { narrow = !narrow; draw(); }
  });
}

document.querySelectorAll(".chart").forEach(attach);
