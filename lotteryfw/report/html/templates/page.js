"use strict";
// Draws every chart of the page: one view at a time, in the page's colours, with the legend where there is room.
const charts = JSON.parse(document.getElementById("charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const NARROW = 800, PANEL = 160, LEGEND_ROW = 20, BOX_ROW = 16, LONG = 36, BOXES = 5; // pixels, but letters, and in a row of a phone

// Lists of figures stand once in the page, and traces name them by their place.
function filled(trace, narrow, printed) {
  const full = Object.entries(trace).map(([key, value]) => [key, value?.list === undefined ? value : charts.lists[value.list]]);
  const wrapped = narrow && trace.name?.length > LONG ? { name: trace.name.replaceAll(" · ", " ·<br>") } : {};
  const square = narrow && trace.type === "heatmap" ? { showscale: false, ...(trace.x.length > BOXES && (printed ? { textfont: { ...trace.textfont, size: 8 } } : { texttemplate: "" })) } : {};
  return { ...Object.fromEntries(full), ...wrapped, ...square };
}

function layout(view, traces, narrow, printed) {
  const theme = getComputedStyle(document.documentElement);
  const ink = theme.getPropertyValue("--ink"), line = theme.getPropertyValue("--line");
  const axis = own => ({
    gridcolor: line, linecolor: line, zeroline: false, automargin: true, exponentformat: "none", separatethousands: true,
    ...own, title: { text: own.title, standoff: 8, font: { size: narrow ? 11 : 13 } },
  });
  const names = traces.filter(trace => trace.name).flatMap(trace => trace.name.split("<br>"));
  // on paper as many names side by side as fit; a letter is 6 pixels wide, a line with its margins 60
  const columns = printed ? Math.max(1, Math.floor((PAPER - 60) / (60 + 6 * Math.max(1, ...names.map(name => name.length))))) : 1;
  const named = Math.ceil(names.length / columns);
  const boxes = Math.max(0, ...traces.filter(trace => trace.type === "heatmap").map(trace => trace.y.length));
  return {
    font: { family: "inherit", size: narrow ? 12 : 13, color: ink },
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    xaxis: { ...axis(view.xaxis), ...(view.yaxis2 ? { anchor: "y2" } : {}) },
    yaxis: { ...axis(view.yaxis), ...(view.yaxis2 ? { domain: [0.53, 1] } : {}) },
    ...(view.yaxis2 ? { yaxis2: { ...axis(view.yaxis2), domain: [0, 0.47] } } : {}), // the panel below
    margin: { l: 48, r: 8, t: narrow ? 8 : 36, b: 48 },
    height: (view.yaxis2 ? PANEL : 0) + (narrow ? (printed ? 300 : 360) + Math.max(LEGEND_ROW * named, printed ? BOX_ROW * boxes : 0) : Math.max(460, 120 + LEGEND_ROW * named)),
    hovermode: "closest",
    hoverlabel: { align: "left" },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger on a chart scrolls the page
    legend: narrow
      ? { itemsizing: "constant", tracegroupgap: 0, font: { size: 11 }, orientation: columns > 1 ? "h" : "v", maxheight: 1, x: 0, xanchor: "left", y: 0, yref: "container", yanchor: "bottom" }
      : { itemsizing: "constant", tracegroupgap: 0, x: 1.02, xanchor: "left", y: 1, yanchor: "top" },
    showlegend: true,
    uirevision: "kept", // what a reader has hidden stays hidden in another view
  };
}

const PAPER = 660; // pixels: A4 between its margins
const paper = matchMedia("print");

function saved(text, type, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const fileName = text => text.trim().replace(/[^\p{L}\p{N}.-]+/gu, "-").replace(/^-|-$/g, "").slice(0, 80) || "data";
const quoted = cell => /[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
const csv = rows => rows.map(row => row.map(cell => quoted(String(cell ?? ""))).join(",") + "\n").join("");
const SPECIAL = { "\n": " ", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "†": "$\\dagger$", "–": "--", "·": "$\\cdot$" };
const tex = cell => cell.replace(/[\n<>|\\~^±†–·&%$#_{}]/g, sign => SPECIAL[sign] ?? "\\" + sign);

function latex(rows, title) {
  const [head, ...body] = rows.map(row => "  " + row.map(tex).join(" & ") + " \\\\");
  const columns = "l" + "r".repeat(rows[0].length - 1);
  return `% ${title.replaceAll("\n", " ")}\n\\begin{tabular}{${columns}}\n  \\toprule\n${head}\n  \\midrule\n${body.join("\n")}\n  \\bottomrule\n\\end{tabular}\n`;
}

function tableSaver(place) {
  const region = place.previousElementSibling, rows = [...region.querySelectorAll("tr")].map(row => [...row.cells].map(cell => cell.textContent.replaceAll("\u00a0", " ")));
  const title = region.getAttribute("aria-label") || "table";
  return {
    csv: () => saved(csv(rows), "text/csv", fileName(title) + ".csv"),
    tex: () => saved(latex(rows, title), "text/x-tex", fileName(title) + ".tex"),
  };
}

const SEEDS = / \(n = [\d–]+\)$/; // at the end of a curve's name

// A row for each point that is drawn, with its figure and not its height: bands have no name and are left out.
function points(plot, view) {
  const { xaxis, yaxis, yaxis2 } = plot.layout;
  const rows = [["series", xaxis.title.text, view.column ?? yaxis.title.text, ...(yaxis2 ? [yaxis2.title.text] : [])]];
  for (const trace of plot.data) if (trace.name && trace.y && !trace.z) (trace.customdata ?? trace.y).forEach((y, index) => {
    // dots of one category stand side by side around its number
    const x = view.categories?.[Math.round(trace.x[index])] ?? trace.x[index];
    // a name is HTML with ends of lines, the group of the legend is the text
    const name = trace.legendgroup + (SEEDS.exec(trace.name)?.[0] ?? "");
    rows.push([name, x, ...(trace.yaxis === "y2" ? ["", y] : yaxis2 ? [y, ""] : [y])]);
  });
  return rows;
}

const shownView = figure => charts.views[figure.dataset.chart][figure.querySelector("select")?.value ?? 0];

function chartSaver(place) {
  const figure = place.closest("figure"), plot = figure.querySelector(".plot"), name = fileName(figure.dataset.chart);
  const image = format => Plotly.downloadImage(plot, { format, filename: name, width: 1000, height: 620, scale: format === "png" ? 2 : 1 });
  return {
    png: () => image("png"),
    svg: () => image("svg"),
    csv: () => saved(csv(points(plot, shownView(figure))), "text/csv", name + ".csv"),
    pdf: () => { // the browser's own print dialogue, which saves PDF, with this chart alone
      const section = figure.closest("main > *");
      section.classList.add("shown"); figure.classList.add("printed"); document.body.classList.add("one");
      print();
      section.classList.remove("shown"); figure.classList.remove("printed"); document.body.classList.remove("one");
    },
  };
}

function offer(place) {
  const saver = place.closest("figcaption") ? chartSaver(place) : tableSaver(place);
  for (const kind of place.dataset.save.split(" ")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = kind === "tex" ? "LaTeX" : kind.toUpperCase();
    button.addEventListener("click", saver[kind]);
    place.append(button);
  }
}

// The text of a cell whose lines may end where those of the cell may.
const breakable = cell => [...cell.childNodes].map(node => node.nodeName === "WBR" ? "\u200b" : node.textContent).join("");

// A table that is wider than its place gets lines that end inside its cells; if that is not enough, it becomes blocks:
// of each row its name, then its cells below their heads.
function wrap(region) {
  const table = region.querySelector("table");
  if (!table || !region.clientWidth) return; // within closed details
  const isWide = () => region.scrollWidth > region.clientWidth;
  region.classList.remove("tight", "wrapped");
  if (paper.matches || !isWide()) return;
  region.classList.add("tight");
  if (!isWide()) return;
  const heads = [...table.tHead.rows[0].cells].map(cell => breakable(cell) + (cell.cellIndex && "levels" in table.dataset ? " %" : ""));
  for (const row of table.tBodies[0].rows) for (const cell of row.cells) {
    // the head of a row of levels names them, and not the row
    if (cell.cellIndex || !("levels" in table.dataset)) cell.dataset.head = heads[cell.cellIndex];
  }
  region.classList.add("wrapped");
}

function attach(figure) {
  const plot = figure.querySelector(".plot"), select = figure.querySelector("select");
  let narrow = figure.clientWidth < NARROW, printed = false;
  const draw = () => {
    const view = shownView(figure), traces = view.traces.map(trace => filled(trace, narrow, printed));
    const page = layout(view, traces, narrow, printed);
    if (printed) page.width = PAPER;
    Plotly.react(plot, traces, page, {
      responsive: !printed,
      displaylogo: false,
      displayModeBar: narrow ? false : "hover",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], // and none that sends a chart away
    });
  };
  draw();
  select?.addEventListener("change", draw);
  dark.addEventListener("change", draw);
  const forPaper = isPrinted => { printed = isPrinted; narrow = isPrinted || figure.clientWidth < NARROW; draw(); };
  addEventListener("beforeprint", () => forPaper(true));
  addEventListener("afterprint", () => forPaper(false));
  paper.addEventListener("change", event => forPaper(event.matches));
  addEventListener("resize", () => {
    if (narrow !== figure.clientWidth < NARROW) { narrow = !narrow; draw(); }
  });
}

const regions = document.querySelectorAll(".scroll"), wrapAll = () => regions.forEach(wrap);
const folded = document.querySelectorAll("details.tickets");

// On paper nobody can open what is folded: the tables of levels are printed, too.
function unfold(isPrinted) {
  for (const details of folded) {
    if (isPrinted && !details.open) { details.dataset.folded = ""; details.open = true; }
    else if (!isPrinted && "folded" in details.dataset) { delete details.dataset.folded; details.open = false; }
  }
  regions.forEach(region => { if (isPrinted) region.classList.remove("tight", "wrapped"); else wrap(region); });
}

addEventListener("beforeprint", () => unfold(true));
addEventListener("afterprint", () => unfold(false));
paper.addEventListener("change", event => unfold(event.matches));
addEventListener("resize", wrapAll);
document.querySelectorAll("details").forEach(details => details.addEventListener("toggle", wrapAll));
wrapAll();
document.querySelectorAll(".chart").forEach(attach);
document.querySelectorAll("[data-save]").forEach(offer);
