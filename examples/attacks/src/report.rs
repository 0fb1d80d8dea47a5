//! The table for a terminal, and the page with the pictures: one file, nothing from elsewhere.

use std::fmt::Write;

use crate::canary::Audit;
use crate::picture::{RECOVERED_DB, sheet};
use crate::study::{DELTA, EPSILON, Line, Part, Study};

/// The table.
pub fn table(study: &Study) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<52} {:<44} {:>9} {:>8} {:>8} {:>8}  verdict",
        "attack", "protection", "recovered", "best dB", "mid dB", "guess dB"
    );
    for line in &study.lines {
        let (best, middle) =
            line.psnr_db.map_or(("–".into(), "–".into()), |(best, middle)| (decibels(best), decibels(middle)));
        let recovered = format!("{} / {}", line.recovered, line.pictures);
        let guess = decibels(line.guess_db);
        let _ = writeln!(
            text,
            "{:<52} {:<44} {recovered:>9} {best:>8} {middle:>8} {guess:>8}  {}",
            line.attack,
            line.protection,
            line.verdict.word()
        );
    }
    let _ = writeln!(
        text,
        "\n{:<52} {:>6} {:>12} {:>16} {:>12} {:>12}",
        "canary", "rounds", "seen", "false alarms", "ε at least", "ε accounted"
    );
    for (name, audit) in &study.audits {
        let _ = writeln!(
            text,
            "{name:<52} {:>6} {:>12} {:>16} {:>12.3} {:>12}",
            audit.rounds,
            audit.hits,
            audit.false_alarms,
            audit.epsilon_min,
            accounted(audit)
        );
    }
    text
}

/// The page.
pub fn page(study: &Study) -> String {
    let mut body = String::new();
    let _ = write!(
        body,
        "<h1>Attacks you can watch</h1>\
         <p>What an aggregator makes of real updates: devices train a network with 784-… or 64-… inputs on their own pictures ({}), and what reaches \
         the aggregator goes through the product’s own codecs, secure sums and noise. Upper rows are the devices’ pictures, lower rows what the \
         attacker has of them. Seed {}; the same seed gives the same page.</p>\
         <p><b>Recovered</b> means a peak signal-to-noise ratio of {RECOVERED_DB:.0} dB or more. <b>Guess</b> is what as many guesses \
         get at best without any attack, from the mean of public pictures and public pictures taken unseen: a figure near it is no success.</p>{}",
        escaped(&study.pictures),
        study.seed,
        summary(study)
    );
    section(&mut body, study, Part::Inversion, "Gradient inversion", INVERSION);
    section(&mut body, study, Part::Malicious, "A malicious network", MALICIOUS);
    canaries(&mut body, &study.audits);
    body.push_str(WORKS);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>Starling: attacks you can watch</title><style>{STYLE}</style></head>\
         <body><main>{body}</main></body></html>\n"
    )
}

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8886;--good:#1a7f37;--bad:#c0392b;--some:#b7791f}\
@media(prefers-color-scheme:dark){:root{--good:#4ac26b;--bad:#ff7b72;--some:#e3b341}}\
body{font:16px/1.5 system-ui,sans-serif;margin:0}main{max-width:66rem;margin:2rem auto;padding:0 1rem}\
h1,h2,h3{line-height:1.2}h2{margin-top:3rem}h3{margin:2rem 0 .3rem;font-size:1rem}\
table{border-collapse:collapse;width:100%;font-size:.9rem}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line)}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.scroll{overflow-x:auto}\
.succeeds{color:var(--bad);font-weight:600}.leaks{color:var(--some);font-weight:600}.fails,.refused{color:var(--good);font-weight:600}\
img{image-rendering:pixelated;max-width:100%;height:auto;display:block;margin:.4rem 0}small{opacity:.8}";

const INVERSION: &str = "The network is honest: linear, ReLU, linear. A step changes each neuron’s weights by a mixture of the \
     pictures that it is active for. With one picture, weights divided by bias is that picture (Phong et al. 2017; Geiping et al. 2020). With b \
     pictures the changes have rank b, and the zeros that ReLU leaves unmix them (SPEAR, Dimitrov et al. 2024).";

const MALICIOUS: &str = "The aggregator hands out a network whose first layer sorts pictures by brightness into bins; what lies between two \
     neighbouring neurons is what lies in one bin (Fowl et al. 2022; Boenisch et al. 2023 do it by weights alone). It works through a secure sum, because the sum \
     over devices is what it needs. Ten devices with ten pictures each; the first twenty are shown.";

const WORKS: &str = "<h2>What still works</h2><ul>\
     <li>A secure sum over devices that hold one or very few pictures is a small batch, and small batches can be unmixed.</li>\
     <li>A publisher’s signature covers the plan: layers, codec, clip, noise. It does not cover weights. Whoever holds the aggregator can \
     send crafted weights for the signed network as a version of any round, and the network above takes them. Only noise stops that. Binding the first \
     version would not: such an aggregator calls its first round the second.</li>\
     <li>Rounding to few bits blurs pictures and promises nothing: the same weights for many rounds average it out.</li>\
     <li>Noise that stops pictures is far less than noise that hides whether somebody took part; see the canary. The figures here are for one round.</li>\
     <li>Not tried: inversion by optimisation with priors over pictures, attacks over many rounds, attacks on convolutions. That an attack fails here does \
     not show that none succeeds; ε does, against all of them.</li></ul>";

fn section(body: &mut String, study: &Study, part: Part, title: &str, about: &str) {
    let _ = write!(body, "<h2>{title}</h2><p>{about}</p>");
    for line in study.lines.iter().filter(|line| line.part == part) {
        let _ = write!(
            body,
            "<h3>{} · {} · <span class=\"{verdict}\">{verdict}</span></h3>",
            escaped(&line.attack),
            escaped(&line.protection),
            verdict = line.verdict.word()
        );
        if let Some((best, middle)) = line.psnr_db {
            let _ = write!(
                body,
                "<p>{} of {} recovered; best {} dB, middle {} dB; a guess {} dB.</p>",
                line.recovered,
                line.pictures,
                decibels(best),
                decibels(middle),
                decibels(line.guess_db)
            );
        }
        if !line.note.is_empty() {
            let _ = write!(body, "<p><small>{}</small></p>", escaped(&line.note));
        }
        if !line.shown.is_empty() {
            let zoom = if line.shown[0][0].side() > 16 { 1 } else { 4 };
            let picture =
                format!("Above: {} true pictures. Below: the closest that the attacker has.", line.shown[0].len());
            let data = base64(&sheet(&line.shown, zoom));
            let width = (line.shown[0][0].side() + 1) * zoom * line.shown[0].len() * if zoom == 1 { 2 } else { 1 };
            let _ = write!(body, "<img width=\"{width}\" alt=\"{picture}\" src=\"data:image/png;base64,{data}\">");
        }
    }
}

fn summary(study: &Study) -> String {
    let mut text = String::from(
        "<div class=\"scroll\"><table><tr><th>attack</th><th>protection</th><th class=\"n\">recovered</th><th class=\"n\">best dB</th>\
         <th class=\"n\">guess dB</th><th>verdict</th></tr>",
    );
    for line in &study.lines {
        let Line { attack, protection, recovered, pictures, .. } = line;
        let best = line.psnr_db.map_or("–".into(), |(best, _)| decibels(best));
        let _ = write!(
            text,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{recovered} / {pictures}</td><td class=\"n\">{best}</td><td class=\"n\">{}</td>\
             <td class=\"{verdict}\">{verdict}</td></tr>",
            escaped(attack),
            escaped(protection),
            decibels(line.guess_db),
            verdict = line.verdict.word()
        );
    }
    let _ = write!(
        text,
        "</table></div><p><small>Noise of ε = {EPSILON}: what one round costs a device, at δ = {DELTA:e}; neighbours differ in one device’s update \
         replaced by zeros; no sampling; one of the ten may work with the aggregator.</small></p>"
    );
    text
}

fn canaries(body: &mut String, audits: &[(String, Audit)]) {
    body.push_str(
        "<h2>A canary</h2><p>One device sends the same direction, as long as the clip, or does not take part. The attacker knows the direction \
         and everybody else’s update, and says after each round which it was. From how often he is right follows an ε that the mechanism has at \
         least, with 95 % confidence (Clopper and Pearson); it must not be above what the accountant says. Without noise he is always right, and the bound \
         is what so many rounds can show at most.</p><div class=\"scroll\"><table><tr><th>noise</th><th class=\"n\">rounds with / without</th>\
         <th class=\"n\">seen</th><th class=\"n\">false alarms</th><th class=\"n\">ε at least</th><th class=\"n\">ε accounted</th>\
         <th class=\"n\">most that can show</th></tr>",
    );
    for (name, audit) in audits {
        let honest = if audit.epsilon_min <= audit.epsilon_accounted { "fails" } else { "succeeds" };
        let _ = write!(
            body,
            "<tr><td>{}</td><td class=\"n\">{rounds} / {rounds}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n {honest}\">{:.2}</td><td class=\"n\">{}</td><td class=\"n\">{:.2}</td></tr>",
            escaped(name),
            audit.hits,
            audit.false_alarms,
            audit.epsilon_min,
            accounted(audit),
            audit.epsilon_visible,
            rounds = audit.rounds
        );
    }
    body.push_str("</table></div>");
}

fn accounted(audit: &Audit) -> String {
    if audit.epsilon_accounted.is_finite() { format!("{:.3}", audit.epsilon_accounted) } else { "none".into() }
}

fn decibels(value: f64) -> String {
    format!("{value:.1}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().chain([0; 2].iter()).take(3).fold(0usize, |word, byte| word << 8 | usize::from(*byte));
        for place in 0..4 {
            let letter = LETTERS[word >> (18 - 6 * place) & 63];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
