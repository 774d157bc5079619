//! The report as one HTML page that needs nothing else.

use std::fmt::Write;

use crate::obedience::{self, Followed, Obedience};

use super::{
    Report,
    comparison::{Comparison, Ensembles, Kind, Population},
    metric::Metric,
    plot::{self, Axis, Ink, Plot, escape},
    spectrum::Spectrum,
    transfer::Transfer,
};

const STYLE: &str = include_str!("page.css");
const NOVELTY: &str = "novelty, in distances between neighbours in the zoo";

/// The page.
pub fn page(report: &Report, metric: Option<&Metric>) -> String {
    let found = &report.comparison;
    let mut body = String::new();
    let mut section = |title: &str, text: &str, figure: &str| {
        write!(
            body,
            "<section><h2>{title}</h2><p>{text}</p>{figure}</section>"
        )
        .expect("strings grow");
    };
    section(
        "Goals",
        "Set before the measurement; every network counts.",
        &goals(report),
    );
    section(
        "All figures",
        &format!(
            "Novelty is the distance to the nearest training network, or to an earlier network of \
             the same row of this table if that is nearer, in median distances of a training network \
             to its nearest neighbour ({:.3} here). A near copy has its nearest training network \
             nearer than a third of the second nearest. The area is that under the curve below.",
            found.unit
        ),
        &table(found, metric),
    );
    if let Some(metric) = metric {
        section(
            &format!("{} of every network", capitalised(metric.name())),
            "Each dot is a network, the bars are means, the dashed line is the zoo's mean. Nothing \
             was selected.",
            &scores(found, metric),
        );
        section(
            "Good or new: both is the task",
            "Copies of zoo networks are good and not new; noise is new and not good. Networks to the \
             right of 1 are as far from the zoo as its networks are from each other.",
            &scatter(found, metric),
        );
    }
    section(
        "Novel and good",
        &curve_text(report, metric),
        &curves(found),
    );
    if let (Some(overlaps), Some(metric)) = (overlaps(found), metric) {
        section(
            "Errors of their own",
            &overlaps_text(found, metric),
            &overlaps,
        );
    }
    if let Some(ensembles) = &found.ensembles {
        section(
            "Ensembles",
            "The mean of the class probabilities of several networks decides. Copies would gain \
             nothing from each other.",
            &ensemble_plot(ensembles),
        );
    }
    if let Some(spectrum) = &found.spectrum {
        section("Spread", &spread_text(spectrum), &spectrum_plot(spectrum));
    }
    match &report.obedience {
        Some(Obedience::Classes {
            names,
            zoo,
            generated,
        }) => section(
            "Obedience",
            &classes_text(zoo, generated),
            &(confusion("zoo", names, zoo) + &confusion("generated", names, generated)),
        ),
        Some(Obedience::Axes(axes)) => {
            for axis in axes {
                section("Obedience", &followed_text(axis), &followed_plot(axis));
            }
        }
        None => {}
    }
    if let (Some(transfer), Some(metric)) = (&report.transfer, metric) {
        section(
            "A start for another task",
            &transfer_text(transfer, metric),
            &transfer_plot(transfer, metric),
        );
    }
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>\
         <main><h1>{title}</h1><p class=\"lead\">{lead}</p>{body}<footer>{notes}</footer></main>\
         </body></html>\n",
        title = escape(&report.title),
        lead = escape(&report.lead),
        notes = report
            .notes
            .iter()
            .map(|note| format!("<p>{}</p>", escape(note)))
            .collect::<String>()
    )
}

fn goals(report: &Report) -> String {
    let item = |goal: &super::Goal| {
        let (class, verdict) = match goal.met {
            Some(true) => ("met", "met"),
            Some(false) => ("missed", "missed"),
            None => ("open", "not set"),
        };
        format!(
            "<li><span class=\"verdict {class}\">{verdict}</span><span>{}</span></li>",
            escape(&goal.text)
        )
    };
    let items: String = report.goals.iter().map(item).collect();
    format!("<ul class=\"goals\">{items}</ul>")
}

fn table(found: &Comparison, metric: Option<&Metric>) -> String {
    let mut text = String::from("<table><tr><th></th>");
    if let Some(metric) = metric {
        write!(
            text,
            "<th>mean {}</th><th>std</th><th>worst</th>",
            metric.name()
        )
        .expect("strings grow");
    }
    text.push_str(
        "<th>median novelty</th><th>near copies</th><th>two disagree</th><th>area</th></tr>",
    );
    for population in &found.populations {
        let class = match population.kind {
            Kind::Zoo => "zoo",
            Kind::HeldOut => "held_out",
            Kind::Generated => "generated",
            Kind::Baseline => "baseline",
        };
        write!(
            text,
            "<tr class=\"{class}\"><td>{}</td>",
            escape(&population.name)
        )
        .expect("strings grow");
        if let (Some(metric), Some(mean)) = (metric, population.mean()) {
            write!(
                text,
                "<td>{}</td><td>{}</td><td>{}</td>",
                metric.show(mean),
                metric.show(population.std()),
                metric.show(population.worst())
            )
            .expect("strings grow");
        }
        let disagreement = population
            .disagreement
            .map_or(String::new(), |share| format!("{:.2} %", 100.0 * share));
        write!(
            text,
            "<td>{:.2}</td><td>{:.0} %</td><td>{disagreement}</td><td>{:.3}</td></tr>",
            super::median(population.novelty.clone()),
            100.0 * population.near_copies,
            population.area
        )
        .expect("strings grow");
    }
    text + "</table>"
}

/// How each population looks, the baselines in their order.
fn inks(found: &Comparison) -> impl Iterator<Item = (Ink, &Population)> {
    let mut others = 0;
    found.populations.iter().map(move |population| {
        let ink = match population.kind {
            Kind::Zoo => Ink::Zoo,
            Kind::HeldOut => Ink::HeldOut,
            Kind::Generated => Ink::Generated,
            Kind::Baseline => {
                others += 1;
                Ink::Other(others - 1)
            }
        };
        (ink, population)
    })
}

/// A range that shows the networks that matter: those that fail altogether lie at its edge.
fn score_range(found: &Comparison) -> [f64; 2] {
    let kinds = [Kind::Zoo, Kind::HeldOut, Kind::Generated];
    let scores = kinds.into_iter().flat_map(|kind| &found.of(kind).scores);
    let [least, greatest] = plot::range(scores.copied());
    [least - 0.6 * (greatest - least), greatest]
}

fn scores(found: &Comparison, metric: &Metric) -> String {
    let show = |score: f64| metric.show(score);
    let axis = Axis {
        title: metric.name(),
        range: score_range(found),
        show: &show,
        logarithmic: false,
    };
    let rows = inks(found).map(|(ink, p)| (ink, p.name.as_str(), p.scores.as_slice()));
    plot::strips(&axis, rows, found.of(Kind::Zoo).mean())
}

fn scatter(found: &Comparison, metric: &Metric) -> String {
    let show = |score: f64| metric.show(score);
    let novelties = found
        .populations
        .iter()
        .flat_map(|p| p.novelty.iter().copied());
    let largest = novelties.fold(1.0, f64::max).min(2.5);
    let x = Axis {
        title: NOVELTY,
        range: [0.0, largest],
        show: &|x| format!("{x:.1}"),
        logarithmic: false,
    };
    let y = Axis {
        title: metric.name(),
        range: score_range(found),
        show: &show,
        logarithmic: false,
    };
    let mut plot = Plot::new(x, y);
    // The flow's on top.
    let mut order: Vec<_> = inks(found).collect();
    order.sort_by_key(|(_, p)| match p.kind {
        Kind::Baseline => 0,
        Kind::Zoo => 1,
        Kind::HeldOut => 2,
        Kind::Generated => 3,
    });
    for (ink, p) in order {
        let points = p.novelty.iter().copied().zip(p.scores.iter().copied());
        plot.dots(ink, &p.name, points);
    }
    if let Some(good) = found.good {
        plot.level(good, "good from here on");
    }
    plot.finish()
}

fn curve_text(report: &Report, metric: Option<&Metric>) -> String {
    let good = match (metric, report.comparison.good) {
        (Some(metric), Some(good)) => {
            format!("{} of at least {}", metric.name(), metric.show(good))
        }
        _ => "no score was measured: every network counts as good".into(),
    };
    format!(
        "The share of networks that are good ({good}) and at least as new as the horizontal axis \
         says. Higher and further right is better; a curve that falls early belongs to copies."
    )
}

fn curves(found: &Comparison) -> String {
    let share = |share: f64| format!("{:.0} %", 100.0 * share);
    let x = Axis {
        title: NOVELTY,
        range: [0.0, found.thresholds[found.thresholds.len() - 1]],
        show: &|x| format!("{x:.1}"),
        logarithmic: false,
    };
    let y = Axis {
        title: "novel and good",
        range: [0.0, 1.0],
        show: &share,
        logarithmic: false,
    };
    let mut plot = Plot::new(x, y);
    for (ink, p) in inks(found) {
        let points = found
            .thresholds
            .iter()
            .copied()
            .zip(p.curve.iter().copied());
        plot.line(ink, &p.name, points);
    }
    plot.finish()
}

fn overlaps_text(found: &Comparison, metric: &Metric) -> String {
    let [errors, actions] = match metric.data() {
        Some(_) => [
            "rows that a network gets wrong",
            "of the rows are classified",
        ],
        None => [
            "episodes in which a policy does not reach the return that solves the task",
            "of the states that a random policy comes through are answered",
        ],
    };
    let share = |kind| match found.of(kind).disagreement {
        Some(share) => format!("{:.1} %", 100.0 * share),
        None => "none".into(),
    };
    format!(
        "Largest overlap (intersection over union) of the {errors} with those of any one training \
         network: 1 would be a network that errs like one of the zoo, or errs as little where neither \
         does at all. The zoo's own networks show what independent training gives. {} {actions} \
         differently by two generated networks, {} by two of the zoo.",
        share(Kind::Generated),
        share(Kind::Zoo)
    )
}

fn overlaps(found: &Comparison) -> Option<String> {
    if found.of(Kind::Generated).overlaps.is_empty() {
        return None;
    }
    let axis = Axis {
        title: "largest overlap of errors with a training network",
        range: [0.0, 1.0],
        show: &|x| format!("{x:.1}"),
        logarithmic: false,
    };
    let rows = inks(found).map(|(ink, p)| (ink, p.name.as_str(), p.overlaps.as_slice()));
    Some(plot::strips(&axis, rows, None))
}

fn ensemble_plot(ensembles: &Ensembles) -> String {
    let all = ensembles.zoo.iter().chain(&ensembles.generated).copied();
    let largest = *ensembles.sizes.last().unwrap_or(&2) as f64;
    let x = Axis {
        title: "networks in the ensemble",
        range: [1.0, largest.max(2.0)],
        show: &|x| format!("{x:.0}"),
        logarithmic: true,
    };
    let y = Axis {
        title: "accuracy",
        range: plot::range(all),
        show: &|y| format!("{:.1} %", 100.0 * y),
        logarithmic: false,
    };
    let mut plot = Plot::new(x, y);
    let sizes = || ensembles.sizes.iter().map(|size| *size as f64);
    plot.line(Ink::Zoo, "zoo", sizes().zip(ensembles.zoo.iter().copied()));
    plot.line(
        Ink::Generated,
        "generated",
        sizes().zip(ensembles.generated.iter().copied()),
    );
    plot.finish()
}

fn spread_text(spectrum: &Spectrum) -> String {
    format!(
        "Standard deviation along each principal axis of the training networks, the widest first. \
         Generated networks that spread less have collapsed towards the middle; here they spread \
         {:.2} times as far in the median. {:.1} % of their variance lies outside the space that \
         the training networks span, {:.1} % of that of held-out networks.",
        spectrum.ratio(),
        100.0 * spectrum.generated_outside,
        100.0 * spectrum.held_out_outside
    )
}

fn spectrum_plot(spectrum: &Spectrum) -> String {
    let all = spectrum.training.iter().chain(&spectrum.generated).copied();
    let x = Axis {
        title: "principal axis",
        range: [1.0, spectrum.training.len().max(2) as f64],
        show: &|x| format!("{x:.0}"),
        logarithmic: false,
    };
    let y = Axis {
        title: "standard deviation",
        range: [0.0, plot::range(all)[1]],
        show: &|y| format!("{y:.2}"),
        logarithmic: false,
    };
    let mut plot = Plot::new(x, y);
    let axes = |values: &[f64]| -> Vec<(f64, f64)> {
        let places = (1..=values.len()).map(|i| i as f64);
        places.zip(values.iter().copied()).collect()
    };
    plot.line(Ink::Zoo, "zoo", axes(&spectrum.training).into_iter());
    plot.line(
        Ink::Generated,
        "generated",
        axes(&spectrum.generated).into_iter(),
    );
    plot.finish()
}

fn transfer_text(transfer: &Transfer, metric: &Metric) -> String {
    let last = transfer.epochs.len() - 1;
    let [random, zoo, generated] =
        [&transfer.random, &transfer.zoo, &transfer.generated].map(|s| metric.show(s[last]));
    format!(
        "The same networks as starts for a task that the zoo was not trained for ({}), {} of each, \
         fine-tuned alike. After {} epochs: random initialisation {random}, zoo {zoo}, generated \
         {generated}.",
        escape(&transfer.task),
        transfer.networks,
        transfer.epochs[last]
    )
}

fn transfer_plot(transfer: &Transfer, metric: &Metric) -> String {
    let show = |score: f64| metric.show(score);
    let largest = transfer.epochs[transfer.epochs.len() - 1] as f64;
    let x = Axis {
        title: "epochs",
        range: [0.0, largest],
        show: &|x| format!("{x:.0}"),
        logarithmic: false,
    };
    let y = Axis {
        title: metric.name(),
        range: [0.0, 1.0],
        show: &show,
        logarithmic: false,
    };
    let mut plot = Plot::new(x, y);
    for (ink, name, scores) in [
        (Ink::Other(0), "random initialisation", &transfer.random),
        (Ink::Zoo, "zoo", &transfer.zoo),
        (Ink::Generated, "generated", &transfer.generated),
    ] {
        let epochs = transfer.epochs.iter().map(|epoch| *epoch as f64);
        plot.line(ink, name, epochs.zip(scores.iter().copied()));
    }
    plot.finish()
}

/// How conditions are read.
const READING: &str = "A linear regression reads the condition off a network's weights; it was fitted \
                       to the training networks, each of which is read without itself.";

fn classes_text(zoo: &[Vec<usize>], generated: &[Vec<usize>]) -> String {
    format!(
        "{READING} {:.1} % of the generated networks are read as the class that was asked for, and \
         {:.1} % of the zoo's as theirs.",
        100.0 * obedience::obeyed(generated),
        100.0 * obedience::obeyed(zoo)
    )
}

fn confusion(who: &str, names: &[String], counts: &[Vec<usize>]) -> String {
    let cells = |tag: &str, cells: &[String]| -> String {
        let cell = |cell: &String| format!("<{tag}>{}</{tag}>", escape(cell));
        cells.iter().map(cell).collect()
    };
    let header = cells("th", names);
    let row = |(name, counts): (&String, &Vec<usize>)| {
        let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
        format!("<tr><td>{}</td>{}</tr>", escape(name), cells("td", &counts))
    };
    let rows: String = names.iter().zip(counts).map(row).collect();
    format!("<table><tr><th>{who}: asked, read as</th>{header}</tr>{rows}</table>")
}

fn followed_text(axis: &Followed) -> String {
    let [[slope, correlation], [zoo_slope, zoo_correlation]] =
        [&axis.generated, &axis.zoo].map(|points| obedience::line(points));
    format!(
        "{READING} What is read over the {} that was asked has slope {slope:.2} and correlation \
         {correlation:.2} in generated networks, {zoo_slope:.2} and {zoo_correlation:.2} in the zoo's.",
        escape(&axis.name)
    )
}

fn followed_plot(axis: &Followed) -> String {
    let points = || axis.zoo.iter().chain(&axis.generated);
    let show = |value: f64| format!("{value:.2}");
    let x = Axis {
        title: &format!("{} asked", axis.name),
        range: plot::range(points().map(|point| point.0)),
        show: &show,
        logarithmic: false,
    };
    let y = Axis {
        title: &format!("{} read", axis.name),
        range: plot::range(points().map(|point| point.1)),
        show: &show,
        logarithmic: false,
    };
    let mut plot = Plot::new(x, y);
    plot.dots(Ink::Zoo, "zoo", axis.zoo.iter().copied());
    plot.dots(Ink::Generated, "generated", axis.generated.iter().copied());
    plot.finish()
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}
