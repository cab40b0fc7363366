//! Drawing versions over time, as SVG or PNG.

use std::path::Path;
use std::sync::Once;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::error::Error;

const SIZE: (u32, u32) = (1000, 500);

/// A version, or a run of a simulation.
pub struct Dot {
    /// Since 1970, or since the beginning.
    pub seconds: i64,
    /// What is shown upwards, on a logarithmic scale; at least 1.
    pub value: u64,
    pub is_whole: bool,
    pub stays: bool,
}

/// What is drawn.
pub struct Picture {
    pub title: String,
    /// What values count.
    pub unit: &'static str,
    pub dots: Vec<Dot>,
    /// Places in time, and what is written there.
    pub lines: Vec<(i64, String)>,
}

/// Draws to a file: its name says how.
pub fn draw(picture: &Picture, path: &Path) -> Result<(), Error> {
    // PNG needs a font of its own: machines without a screen have none.
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        let font = dejavu::sans_mono::regular();
        let _ = register_font("sans-serif", FontStyle::Normal, font);
    });
    let extension = path.extension().and_then(|extension| extension.to_str());
    let drawn = match extension {
        Some("svg") => paint(picture, &SVGBackend::new(path, SIZE).into_drawing_area()),
        Some("png") => paint(picture, &BitMapBackend::new(path, SIZE).into_drawing_area()),
        _ => {
            return Err(Error::Usage(format!(
                "{} is no picture: name a file that ends in .svg or .png",
                path.display()
            )));
        }
    };
    drawn.map_err(|error| Error::Refused(format!("Cannot draw {}: {error}", path.display())))
}

fn paint<B: DrawingBackend>(picture: &Picture, root: &DrawingArea<B, Shift>) -> Result<(), String> {
    let text = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
    root.fill(&WHITE).map_err(text)?;
    let times = picture.dots.iter().map(|dot| dot.seconds);
    let times = times.chain(picture.lines.iter().map(|(seconds, _)| *seconds));
    let (first, last) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
    let margin = ((last - first) / 50).max(1);
    let most = picture.dots.iter().map(|dot| dot.value).max().unwrap_or(1);
    let mut chart = ChartBuilder::on(root)
        .caption(&picture.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(90)
        .build_cartesian_2d(
            first - margin..last + margin,
            (1..most.saturating_mul(2)).log_scale(),
        )
        .map_err(text)?;
    let is_date = first > 100_000_000;
    let x_label = |seconds: &i64| when(*seconds, is_date);
    chart
        .configure_mesh()
        .x_labels(8)
        .x_label_formatter(&x_label)
        .y_desc(picture.unit)
        .light_line_style(WHITE)
        .label_style(("sans-serif", 12))
        .draw()
        .map_err(text)?;
    for (seconds, name) in &picture.lines {
        let ends = [(*seconds, 1), (*seconds, most)];
        let line = PathElement::new(ends, RGBColor(160, 160, 160));
        chart.draw_series([line]).map_err(text)?;
        let label = Text::new(name.clone(), (*seconds, most), ("sans-serif", 12));
        chart.draw_series([label]).map_err(text)?;
    }
    let dots = picture.dots.iter().map(|dot| {
        let color = match (dot.stays, dot.is_whole) {
            (false, _) => RGBColor(190, 190, 190),
            (true, true) => RGBColor(200, 60, 40),
            (true, false) => RGBColor(40, 90, 170),
        };
        Circle::new((dot.seconds, dot.value), 3, color.filled())
    });
    chart.draw_series(dots).map_err(text)?;
    root.present().map_err(text)
}

/// A date, or days since the beginning.
fn when(seconds: i64, is_date: bool) -> String {
    let time = Timestamp::from_second(seconds).ok().filter(|_| is_date);
    match time {
        Some(time) => time
            .to_zoned(TimeZone::system())
            .strftime("%Y-%m-%d")
            .to_string(),
        None => format!("{} d", seconds / 86_400),
    }
}
