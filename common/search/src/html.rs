//! The report of a search as one file: it opens from disk, asks for nothing, runs no script, and follows the reader's light or
//! dark setting.

use std::fmt::Write;

use starling_spec::TaskKind;

use crate::candidate::Candidate;
use crate::choice::describe;
use crate::figures::Figures;
use crate::search::Outcome;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#666f7a;--line:#d5dae0;--paper:#fff;--front:#0b63c5;--chosen:#c2410c}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--dim:#98a2ad;--line:#39414a;--paper:#14181c;--front:#6cb0ff;--chosen:#ff9a5c}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}th,td{padding:.25rem .7rem;text-align:right;\
border-bottom:1px solid var(--line)}th:first-child,td:first-child{text-align:left}.chosen td{color:var(--chosen);font-weight:600}\
.dim{color:var(--dim)}.scroll{overflow-x:auto}svg{max-width:100%;height:auto}svg text{fill:var(--dim);font-size:12px}";

/// The report of `outcome`.
pub fn report_html(outcome: &Outcome) -> String {
    let chosen = outcome.chosen();
    let mut page = String::new();
    let task = escape(&outcome.task);
    push(
        &mut page,
        format_args!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{task}: compression</title><style>{STYLE}</style></head><body>\n\
         <h1>{task}: compression</h1>\n\
         <p><b>{}</b> was chosen: {}. It is {} bytes, {:.1} times smaller than the {} bytes of the full model's floats.</p>\n\
         <p class=\"dim\">Accuracies and losses are those of {}, not of test data. Latency is the median time of one sample on one \
         thread of the machine that searched. Limits: {}.</p>\n",
            escape(&chosen.name),
            escape(&outcome.choice.why),
            chosen.figures.bytes,
            chosen.ratio(outcome.bytes_f32),
            outcome.bytes_f32,
            escape(&outcome.judged_on),
            describe(&outcome.limits, outcome.kind),
        ),
    );
    if let Some(pruning) = outcome.pruning {
        push(&mut page, format_args!("<p>Weights were pruned {}.</p>\n", escape(&pruning.to_string())));
    }
    plot(&mut page, outcome);
    candidates(&mut page, outcome);
    push(&mut page, format_args!("<h2>{}, tensor by tensor</h2>\n", escape(&chosen.name)));
    tensors(&mut page, chosen);
    if !outcome.notes.is_empty() {
        page.push_str("<h2>Notes</h2>\n<ul>\n");
        for note in &outcome.notes {
            push(&mut page, format_args!("<li>{}</li>\n", escape(note)));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</body></html>\n");
    page
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a String takes any text");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn quality_word(kind: TaskKind) -> &'static str {
    if kind == TaskKind::Regression { "loss" } else { "accuracy" }
}

fn quality(figures: &Figures, kind: TaskKind) -> String {
    match kind {
        TaskKind::Regression => format!("{:.4}", figures.loss),
        _ => format!("{:.2} %", figures.accuracy * 100.0),
    }
}

fn cell(value: Option<String>) -> String {
    value.unwrap_or_else(|| "–".to_owned())
}

fn candidates(page: &mut String, outcome: &Outcome) {
    let kind = outcome.kind;
    push(
        page,
        format_args!(
            "<h2>Candidates</h2>\n<div class=\"scroll\"><table><thead><tr><th>candidate</th><th>validation {}</th><th>loss</th>\
         <th>bytes</th><th>smaller</th><th>multiply-accumulates</th><th>latency</th><th>front</th></tr></thead><tbody>\n",
            quality_word(kind)
        ),
    );
    let mut row = |name: &str, class: &str, figures: &Figures, ratio: f64, front: &str| {
        push(
            page,
            format_args!(
                "<tr{class}><td>{}</td><td>{}</td><td>{:.4}</td><td>{}</td><td>{ratio:.1}×</td><td>{}</td><td>{}</td><td>{front}</td></tr>\n",
                escape(name),
                quality(figures, kind),
                figures.loss,
                figures.bytes,
                cell(figures.macs.map(|macs| macs.to_string())),
                cell(figures.latency_us.map(|latency| format!("{latency:.2} µs"))),
            ),
        );
    };
    row("full model", "", &outcome.baseline, 1.0, "");
    for (index, candidate) in outcome.candidates.iter().enumerate() {
        let class = if index == outcome.choice.index { " class=\"chosen\"" } else { "" };
        let front = if outcome.on_front[index] { "yes" } else { "" };
        row(&candidate.name, class, &candidate.figures, candidate.ratio(outcome.bytes_f32), front);
    }
    page.push_str("</tbody></table></div>\n");
}

#[allow(clippy::cast_precision_loss, reason = "counts of weights stay far below 2^53")]
fn tensors(page: &mut String, candidate: &Candidate) {
    page.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>tensor</th><th>shape</th><th>form</th><th>kept</th><th>bits a weight</th>\
         <th>bytes before</th><th>bytes after</th></tr></thead><tbody>\n",
    );
    for tensor in &candidate.tensors {
        let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
        push(
            page,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.2} %</td><td>{:.2}</td><td>{}</td><td>{}</td></tr>\n",
                escape(&tensor.name),
                shape.join("×"),
                escape(&tensor.form),
                100.0 * tensor.kept as f64 / tensor.weights.max(1) as f64,
                tensor.bits_per_weight,
                tensor.bytes_f32,
                tensor.bytes,
            ),
        );
    }
    page.push_str("</tbody></table></div>\n");
}

/// The plot's size and the frame inside it.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;

/// What the axis of sizes is marked with.
const SIZES: [(f64, &str); 20] = [
    (1e2, "100 B"),
    (2e2, "200 B"),
    (5e2, "500 B"),
    (1e3, "1 kB"),
    (2e3, "2 kB"),
    (5e3, "5 kB"),
    (1e4, "10 kB"),
    (2e4, "20 kB"),
    (5e4, "50 kB"),
    (1e5, "100 kB"),
    (2e5, "200 kB"),
    (5e5, "500 kB"),
    (1e6, "1 MB"),
    (2e6, "2 MB"),
    (5e6, "5 MB"),
    (1e7, "10 MB"),
    (2e7, "20 MB"),
    (5e7, "50 MB"),
    (1e8, "100 MB"),
    (1e9, "1 GB"),
];

/// A value's place along an axis.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis over `values` with a little room at both ends, drawn from `from` to `to`.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let room = ((high - low) * 0.06).max(1e-6);
        Self { low: low - room, high: high + room, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }
}

/// Quality against the logarithm of bytes; the front is a line, the chosen one a ring.
fn plot(page: &mut String, outcome: &Outcome) {
    let kind = outcome.kind;
    #[allow(clippy::cast_precision_loss, reason = "sizes stay far below 2^53")]
    let size = |figures: &Figures| (figures.bytes.max(1) as f64).log10();
    // A loss goes up the page as it falls, like an accuracy that rises.
    let good = |figures: &Figures| match kind {
        TaskKind::Regression => -figures.loss,
        _ => figures.accuracy * 100.0,
    };
    let everything = || outcome.candidates.iter().map(|candidate| &candidate.figures).chain([&outcome.baseline]);
    let x = Axis::over(everything().map(size), LEFT, WIDTH - RIGHT);
    // What has fallen apart would press all others into one line at the top.
    let best = everything().map(good).fold(f64::NEG_INFINITY, f64::max);
    let shown = 10.0 * if kind == TaskKind::Regression { outcome.baseline.loss.abs().max(1e-6) } else { 1.0 };
    let y = Axis::over(everything().map(|figures| good(figures).max(best - shown)), HEIGHT - BOTTOM, TOP);
    push(
        page,
        format_args!(
            "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} against file size\">\n",
            quality_word(kind)
        ),
    );
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    push(
        page,
        format_args!("<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" style=\"stroke:var(--line)\"/>\n"),
    );
    for step in 0..=4 {
        let value = y.low + (y.high - y.low) * f64::from(step) / 4.0;
        let label = if kind == TaskKind::Regression { format!("{:.3}", -value) } else { format!("{value:.1} %") };
        let (height, text) = (y.place(value), LEFT - 6.0);
        push(page, format_args!("<text x=\"{text}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n", height + 4.0));
    }
    for (size, label) in SIZES {
        let exponent = size.log10();
        if (x.low..=x.high).contains(&exponent) {
            let place = x.place(exponent);
            push(
                page,
                format_args!(
                    "<path d=\"M{place:.1} {TOP}V{bottom}\" style=\"stroke:var(--line)\" stroke-dasharray=\"2 4\"/>\
                 <text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>\n",
                    bottom + 18.0
                ),
            );
        }
    }
    push(
        page,
        format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">file size (logarithmic); up is better</text>\n",
            (LEFT + right) / 2.0,
            HEIGHT - 8.0
        ),
    );
    let spot = |figures: &Figures| (x.place(size(figures)), y.place(good(figures)));
    let mut front: Vec<(f64, f64)> = outcome
        .candidates
        .iter()
        .zip(&outcome.on_front)
        .filter(|(_, on_front)| **on_front)
        .map(|(candidate, _)| spot(&candidate.figures))
        .collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Along the line accuracy may fall where a candidate stands for its latency; the line shows the steps in size alone.
    let mut top = f64::INFINITY;
    front.retain(|(_, height)| {
        let rises = *height < top;
        top = top.min(*height);
        rises
    });
    let line: Vec<String> = front.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    push(page, format_args!("<polyline points=\"{}\" fill=\"none\" style=\"stroke:var(--front)\"/>\n", line.join(" ")));
    let mut dot = |name: &str, figures: &Figures, radius: f64, color: &str| {
        let (x, y) = spot(figures);
        push(
            page,
            format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" style=\"fill:var(--{color})\"><title>{}: {}, {} bytes</title></circle>\n",
                escape(name),
                quality(figures, kind),
                figures.bytes
            ),
        );
    };
    dot("full model", &outcome.baseline, 4.0, "ink");
    for (index, candidate) in outcome.candidates.iter().enumerate() {
        let color = if outcome.on_front[index] { "front" } else { "dim" };
        if index == outcome.choice.index {
            dot(&candidate.name, &candidate.figures, 7.0, "chosen");
        }
        dot(&candidate.name, &candidate.figures, 4.0, color);
    }
    page.push_str(
        "</svg><figcaption class=\"dim\">Blue: on the front of accuracy, bytes, multiply-accumulates and latency. Orange ring: chosen. \
         Black or white: the full model.</figcaption></figure>\n",
    );
}

#[cfg(test)]
mod tests {
    use starling_compress::release::TensorReport;

    use super::*;
    use crate::choice::Choice;
    use crate::figures::Limits;
    use crate::method::{Granularity, Method};
    use crate::pruning::Pruning;

    fn figures(accuracy: f64, bytes: u64) -> Figures {
        Figures { accuracy, loss: 1.0 - accuracy, points_error: None, bytes, macs: Some(bytes), latency_us: None }
    }

    fn outcome() -> Outcome {
        let tensor = TensorReport {
            name: "1.linear.weight".into(),
            shape: vec![784, 300],
            form: "codebook16".into(),
            weights: 235_200,
            kept: 2_352,
            bits_per_weight: 0.11,
            bytes_f32: 940_800,
            bytes: 3_200,
        };
        let candidate = |name: &str, accuracy, bytes| Candidate {
            name: name.into(),
            method: Method::Deep,
            figures: figures(accuracy, bytes),
            file: Vec::new(),
            tensors: vec![tensor.clone()],
        };
        Outcome {
            task: "a <b> & \"c\"".into(),
            kind: TaskKind::Classification,
            judged_on: "500 validation rows".into(),
            baseline: figures(0.9, 1_000_000),
            bytes_f32: 1_000_000,
            candidates: vec![candidate("deep 1.0 %", 0.89, 5_000), candidate("broken", 0.1, 4_000)],
            on_front: vec![true, true],
            choice: Choice { index: 0, fits: true, why: "the smallest".into() },
            limits: Limits::default(),
            pruning: Some(Pruning::default()),
            granularity: Granularity::default(),
            notes: vec!["binary <weights> were not tried".into()],
        }
    }

    #[test]
    fn the_page_holds_everything_and_asks_for_nothing() {
        let page = report_html(&outcome());
        for wanted in [
            "deep 1.0 %",
            "broken",
            "500 validation rows",
            "200.0",
            "codebook16",
            "784×300",
            "<polyline",
            "the smallest",
            "pruned by magnitude over all layers (LAMP); gradually",
        ] {
            assert!(page.contains(wanted), "{wanted}");
        }
        for unwanted in ["<script", "http:", "https:", "src=", "NaN", "inf"] {
            assert!(!page.contains(unwanted), "{unwanted}");
        }
        let tags = |tag: &str| page.matches(tag).count();
        assert_eq!(tags("<tr"), tags("</tr>"));
        assert_eq!(tags("<circle"), 4, "the full model, two candidates, and the ring");
    }

    #[test]
    fn names_cannot_write_markup() {
        let page = report_html(&outcome());
        assert!(page.contains("a &lt;b&gt; &amp; &quot;c&quot;") && !page.contains("<b> &"));
        assert!(page.contains("binary &lt;weights&gt;"));
    }

    #[test]
    fn places_stay_in_the_frame() {
        let page = report_html(&outcome());
        for part in page.split("<circle ").skip(1) {
            let number = |key: &str| -> f64 {
                let rest = part.split(&format!("{key}=\"")).nth(1).expect(key);
                rest.split('"').next().expect("a value").parse().expect("a number")
            };
            assert!((LEFT..=WIDTH - RIGHT).contains(&number("cx")) && (TOP..=HEIGHT - BOTTOM).contains(&number("cy")));
        }
    }
}
