//! What sharing limits costs and how exact it is, by simulation: CSV and plots. `loadtests/scale` runs it.

mod plot;

use std::{error::Error, fs, path::PathBuf, time::Duration};

use filters::leases::fleet::{Scene, Seen, limit, used_once};
use plot::{Plot, Scale};

const REPLICAS: [u32; 7] = [1, 3, 10, 30, 100, 300, 1000];
const WORKSPACES: [u32; 6] = [10, 100, 1000, 10_000, 100_000, 1_000_000];
const BURSTS: [u32; 12] = [10, 24, 30, 100, 300, 400, 600, 800, 900, 1000, 3000, 10_000];

fn main() -> Result<(), Box<dyn Error>> {
    let mut folders = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(csv), Some(plots)) = (folders.next(), folders.next()) else {
        return Err("name a folder for CSV, and one for plots".into());
    };
    // First: later, freed memory would not be counted.
    let before = resident()?;
    let leases = used_once(100_000);
    let each = (resident()? - before) / 100_000;
    println!("memory of a limit in a replica: {each} bytes, of {}", leases.status().limits);
    drop(leases);

    let save = |name: &str, lines: &[String], drawn: Plot| -> std::io::Result<()> {
        fs::write(csv.join(format!("{name}.csv")), lines.join("\n") + "\n")?;
        fs::write(plots.join(format!("scale-{name}.svg")), drawn.draw())
    };
    let (lines, drawn) = exactness();
    save("exactness", &lines, drawn)?;
    let (lines, drawn) = bursts();
    save("bursts", &lines, drawn)?;
    let (lines, drawn) = traffic();
    save("traffic", &lines, drawn)?;
    Ok(())
}

/// Memory of this process, in bytes.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// One workspace of 100/s, for a minute, against replicas.
fn exactness() -> (Vec<String>, Plot) {
    let mut lines = vec![
        "replicas,offered_per_s,passed,one_counter,error_percent,max_excess,allowed_excess,\
         round_trips_per_request,round_trips_per_s"
            .to_owned(),
    ];
    let mut drawn = Plot {
        title: "One workspace of 6000/m, burst 600, for a minute: error",
        x: ("replicas", Scale::Log),
        y: ("% more or less than a single counter", Scale::Linear),
        series: Vec::new(),
    };
    for offered in [80.0, 200.0, 2000.0] {
        let mut points = Vec::new();
        for replicas in REPLICAS {
            let scene = Scene::hot(replicas, limit("6000/m", 600), offered);
            let Seen { above, first, round_trips, requests, .. } = scene.play();
            let error = (first.through as f64 / first.ideal as f64 - 1.0) * 100.0;
            points.push((f64::from(replicas), error));
            lines.push(format!(
                "{replicas},{offered},{},{},{error:.2},{above:.0},{},{:.4},{:.1}",
                first.through,
                first.ideal,
                scene.ahead(),
                round_trips as f64 / requests,
                round_trips as f64 / 60.0
            ));
        }
        drawn.series.push((format!("{offered}/s offered"), points));
    }
    (lines, drawn)
}

/// One workspace that stays within its limit, of three replicas, against its burst.
fn bursts() -> (Vec<String>, Plot) {
    let mut lines =
        vec!["offered_per_s,burst,round_trips_per_request,waited_per_request".to_owned()];
    let mut drawn = Plot {
        title: "One workspace within its limit, three replicas",
        x: ("burst", Scale::Log),
        y: ("round trips per request", Scale::Log),
        series: Vec::new(),
    };
    for offered in [10.0, 30.0, 300.0, 1000.0, 3000.0] {
        let mut points = Vec::new();
        for burst in BURSTS {
            let rate = format!("{}/m", offered * 75.0);
            let scene = Scene {
                lasts: Duration::from_secs(20),
                ..Scene::hot(3, limit(&rate, burst), offered)
            };
            let Seen { round_trips, requests, waited, .. } = scene.play();
            let each = round_trips as f64 / requests;
            points.push((f64::from(burst), each));
            lines.push(format!("{offered},{burst},{each:.4},{:.4}", waited / requests));
        }
        drawn.series.push((format!("{offered}/s"), points));
    }
    (lines, drawn)
}

/// Each replica gets 100 requests a second, of all workspaces together.
fn traffic() -> (Vec<String>, Plot) {
    let mut lines = vec![
        "replicas,workspaces,one_in,requests_per_s,passed_of_one_counter,waited_per_request,\
         questions_per_request,round_trips_per_s,by_formula,round_trips_per_request,beats_per_s"
            .to_owned(),
    ];
    let mut drawn = Plot {
        title: "100 requests/s per replica, limits of 6000/m, burst 600",
        x: ("replicas", Scale::Log),
        y: ("round trips per request", Scale::Linear),
        series: Vec::new(),
    };
    let lasts = Duration::from_secs(10);
    for workspaces in WORKSPACES {
        let mut points = Vec::new();
        for replicas in REPLICAS {
            let one_in = if workspaces > 1000 && replicas > 100 { 10 } else { 1 };
            let rate = 100.0 * f64::from(replicas);
            let hot = Scene::hot(replicas, limit("6000/m", 600), rate);
            let scene = Scene { workspaces, lasts, one_in, ..hot };
            let seen = scene.play();
            let formula = round_trips(&scene, &seen);
            let trips = match one_in {
                1 => seen.round_trips as f64 / lasts.as_secs_f64(),
                _ => formula,
            };
            points.push((f64::from(replicas), trips / rate));
            lines.push(format!(
                "{replicas},{workspaces},{one_in},{:.0},{:.4},{:.4},{:.4},{trips:.0},{formula:.0},{:.4},{:.1}",
                seen.requests / lasts.as_secs_f64(),
                seen.through / seen.ideal,
                seen.waited / seen.requests,
                seen.questions / seen.requests,
                trips / rate,
                seen.beats as f64 / lasts.as_secs_f64()
            ));
        }
        drawn.series.push((format!("{workspaces} workspaces"), points));
    }
    (lines, drawn)
}

/// Batches a second, of questions that arrive at random. A batch follows the previous one immediately if a
/// question arrived meanwhile, and otherwise waits for the next question.
fn round_trips(scene: &Scene, seen: &Seen) -> f64 {
    let replicas = f64::from(scene.replicas);
    let questions = seen.questions / scene.lasts.as_secs_f64() / replicas;
    let way = scene.round_trip.as_secs_f64();
    replicas / (way + (-questions * way).exp() / questions)
}
