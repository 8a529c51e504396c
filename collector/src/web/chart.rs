//! Charts: drawn as SVG whose colours come from the stylesheet, each with its table.
//!
//! Libraries write colours and fonts into the drawing, which strict CSP and the dark theme do not allow; these few
//! shapes need none.

use maud::{Markup, html};

use super::text::number;

/// Of the drawing; it is stretched to its place.
const WIDTH: u64 = 1000;
const HEIGHT: u64 = 100;

/// One bar.
pub(super) struct Bar {
    /// For the table and for hovering.
    pub(super) label: Markup,
    /// Safe plain text of the same.
    pub(super) title: String,
    pub(super) value: u64,
    /// Stands out: something bad.
    pub(super) alarm: bool,
}

/// Bars over time, and the same as a table.
pub(super) fn bars(what: &str, axis: &[String], bars: &[Bar]) -> Markup {
    let highest = bars.iter().map(|bar| bar.value).max().unwrap_or_default();
    let count = (bars.len() as u64).max(1);
    let step = WIDTH / count;
    html! {
        figure.chart {
            figcaption { (what) span.peak { "peak " (number(highest)) } }
            svg viewBox={ "0 0 " (step * count) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label={ (what) ": peak " (number(highest)) "; the table below has the numbers" } {
                line.base x1="0" x2=(step * count) y1=(HEIGHT) y2=(HEIGHT) {}
                @for (index, bar) in bars.iter().enumerate().filter(|(_, bar)| bar.value > 0) {
                    @let height = tall(bar.value, highest);
                    rect.alarm[bar.alarm] x=(index as u64 * step + step / 8) width=((step * 3 / 4).max(1)) y=(HEIGHT - height) height=(height) {
                        title { (bar.title) ": " (number(bar.value)) }
                    }
                }
            }
            div.axis aria-hidden="true" { @for label in axis { span { (label) } } }
            details {
                summary { "Show as table" }
                table.compact {
                    thead { tr { th { "From" } th.num { (what) } } }
                    tbody { @for bar in bars { tr { td { (bar.label) } td.num { (number(bar.value)) } } } }
                }
            }
        }
    }
}

/// At least a sliver for what is there.
fn tall(value: u64, highest: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(HEIGHT) / u128::from(highest.max(1));
    u64::try_from(scaled).unwrap_or(HEIGHT).max(2)
}

/// A share of the greatest, as a bar beside a number.
pub(super) fn share(value: u64, greatest: u64) -> Markup {
    let width = u128::from(value) * u128::from(WIDTH) / u128::from(greatest.max(1));
    html! {
        svg.share viewBox={ "0 0 " (WIDTH) " 10" } preserveAspectRatio="none" aria-hidden="true" {
            rect width=(width) height="10" {}
        }
    }
}

/// When something happened within a whole: the part from `from` to `to` of `whole`, in any unit.
pub(super) fn span(from: u128, to: u128, whole: u128) -> Markup {
    let width = u128::from(WIDTH);
    let x = (from * width / whole.max(1)).min(width - 4);
    let end = (to * width / whole.max(1)).clamp(x + 4, width);
    html! {
        svg.span viewBox={ "0 0 " (WIDTH) " 10" } preserveAspectRatio="none" aria-hidden="true" {
            rect.track width=(WIDTH) height="10" {}
            rect x=(x) width=(end - x) height="10" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_its_numbers_as_a_table_and_no_style_of_its_own() {
        let bar = |value| Bar { label: html! { "9" }, title: "09:00".into(), value, alarm: false };
        let chart = bars("Events", &["08:00".into()], &[bar(0), bar(5), bar(u64::MAX)]).into_string();
        assert!(chart.contains("<details>") && chart.contains("18,446,744,073,709,551,615"), "{chart}");
        assert!(!chart.contains("style") && chart.matches("<rect").count() == 2, "{chart}");
        assert!(bars("Nothing", &[], &[]).into_string().contains("peak 0"));
        assert!(span(u128::MAX / 2000, 0, 0).into_string().contains("<rect"));
    }
}
