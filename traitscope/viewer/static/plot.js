// plotly.js, from the installed Python package, loaded when the first figure is drawn.

let loading = null;

export function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "static/plotly.min.js";
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => {
      loading = null;
      reject(new Error("plotly.js could not be loaded. Install the package 'plotly'."));
    });
    document.head.append(script);
  });
  return loading;
}
