//! The picture for the README: how long each job took each tool.

use std::path::Path;

use plotters::prelude::*;

use super::report::Results;

const WIDTH: u32 = 900;
const BAR: i32 = 16;
const LABELS: i32 = 320;

/// Draws a bar for each tool, job by job, as a share of the slowest.
pub fn draw(results: &Results, path: &Path) -> Result<(), String> {
    let mut lines = Vec::new();
    for set in results.sets() {
        for job in results.jobs(set) {
            let mut bars: Vec<(String, f64)> = results
                .tools(set, job)
                .into_iter()
                .filter_map(|tool| {
                    Some((
                        tool.to_owned(),
                        results.median(set, job, tool, |row| row.cost.wall)?,
                    ))
                })
                .collect();
            bars.sort_by(|a, b| a.1.total_cmp(&b.1));
            lines.push((format!("{set}: {job}"), bars));
        }
    }
    let rows: usize = lines.iter().map(|(_, bars)| bars.len() + 2).sum();
    let height = u32::try_from(rows).unwrap_or(u32::MAX) * BAR.unsigned_abs() + 20;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    paint(&root, &lines).map_err(|error| format!("{}: {error}", path.display()))
}

fn paint(
    root: &DrawingArea<SVGBackend, plotters::coord::Shift>,
    lines: &[(String, Vec<(String, f64)>)],
) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    let font = ("sans-serif", 13).into_font();
    let mut y = 10;
    for (title, bars) in lines {
        root.draw(&Text::new(
            title.clone(),
            (10, y),
            font.clone().style(FontStyle::Bold),
        ))?;
        y += BAR;
        let most = bars
            .iter()
            .map(|(_, value)| *value)
            .fold(f64::MIN_POSITIVE, f64::max);
        for (tool, value) in bars {
            let room = f64::from(i32::try_from(WIDTH)? - LABELS - 90);
            #[expect(clippy::cast_possible_truncation, reason = "pixels")]
            let end = LABELS + (value / most * room) as i32;
            let color = if tool == "btw-backup" {
                RGBColor(200, 60, 40)
            } else {
                RGBColor(140, 150, 170)
            };
            root.draw(&Text::new(tool.clone(), (40, y), font.clone()))?;
            root.draw(&Rectangle::new(
                [(LABELS, y + 2), (end.max(LABELS + 1), y + BAR - 2)],
                color.filled(),
            ))?;
            root.draw(&Text::new(
                format!("{value:.2} s"),
                (end + 6, y),
                font.clone(),
            ))?;
            y += BAR;
        }
        y += BAR;
    }
    Ok(root.present()?)
}
