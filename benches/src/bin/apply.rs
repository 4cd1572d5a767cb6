//! `apply`: what a new configuration of 10,000 virtual servers and 100,000 members costs, stage by stage, on the
//! control thread and on a worker. `wire apply` measures the same with traffic.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use sluice_benches::large::{Size, configuration};
use sluice_benches::report::{median, range};
use sluice_benches::steady::SteadyWorker;
use sluice_control::api;
use sluice_control::check::{Against, Candidate, check, check_source};
use sluice_control::client::Client;
use sluice_control::compile::{Former, compile, compile_after};
use sluice_control::diff::diff;
use sluice_control::ids::{IdBook, Unheld};
use sluice_control::parse::{self, Format, Kept, Node, Source};
use sluice_control::process::{Opened, Process, etag};
use sluice_control::socket::ControlSocket;
use sluice_control::telemetry::Telemetry;
use sluice_dataplane::address::Mac;
use sluice_dataplane::config::snapshot::Snapshot;
use sluice_dataplane::frame::FramePool;
use sluice_dataplane::limits::Limits;
use sluice_dataplane::port::{OpenPort, PortQueue, memory};
use sluice_dataplane::quota::Quotas;

const HELP: &str = "apply [--virtual-servers 10000] [--members 100000] [--rounds 9] [--limited] [--only STAGE]

--limited gives every member a connection limit; --only runs one stage alone, for a profiler. No root needed.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "-h" || word == "--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("apply: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let size = Size {
        virtual_servers: number(arguments, "--virtual-servers", Size::AIM.virtual_servers)?,
        members: number(arguments, "--members", Size::AIM.members)?,
        limited: arguments.iter().any(|word| word == "--limited"),
    };
    let stages = Stages {
        rounds: number(arguments, "--rounds", 9)?,
        only: option(arguments, "--only").map(String::from),
    };
    let texts = [configuration(size, 0), configuration(size, 1)];
    println!(
        "{} virtual servers, {} members{}, {} bytes of YAML; one member in a thousand changes",
        size.virtual_servers,
        size.members,
        if size.limited { " with a connection limit each" } else { "" },
        texts[1].len()
    );
    stages.control(&texts)?;
    stages.worker(&texts)?;
    stages.whole(&texts)
}

/// Times stages one by one, each on the same input.
struct Stages {
    rounds: usize,
    only: Option<String>,
}

impl Stages {
    /// From text to what is handed to the workers.
    fn control(&self, texts: &[String; 2]) -> Result<(), String> {
        let running = candidate(&texts[0], &Against::NOTHING)?;
        let (model, book) = (&running.model, &running.book);
        let node = read(&texts[1])?;
        let next = parse::parse(&node).model.ok_or("a configuration without a model")?;
        let json = serde_json::to_string(&next.to_json()).map_err(|error| error.to_string())?;
        let alone = Against { running: Some(model), book: Some(book), generation: 2, ..Against::NOTHING };
        self.time("read YAML", || parse::read(&texts[1], Format::Yaml).is_ok());
        self.time("read JSON", || parse::read(&json, Format::Json).is_ok());
        self.time("parse", || parse::parse(&node).model.is_some());
        self.time_with(
            "ids",
            || book.clone(),
            |mut book: IdBook| {
                let assigned = book.assign(&next, 2, &Unheld).is_ok();
                (book, assigned)
            },
        );
        let mut assigned = book.clone();
        assigned.assign(&next, 2, &Unheld).map_err(|faults| explain(&faults))?;
        let nothing = std::collections::BTreeSet::new();
        self.time("compile", || compile(&next, &assigned, 2, &nothing).errors.is_empty());
        self.time("diff", || diff(model, &next).changed.len());
        self.time("entity tag", || etag(&next));
        self.time("copy of the ids", || IdBook::clone(book));
        self.time("check: parse to diff", || check(&node, &alone).is_ok());
        let parts = compile(&next, &assigned, 2, &nothing).parts;
        self.time_with("build", || parts.clone(), Snapshot::build);
        let after = Snapshot::build(parts);
        self.again(&running, &texts[1])?;
        let quotas = || Quotas::new(&limits(), 1);
        self.time_with("quotas", quotas, |quotas| quotas.set_limits(&after));
        Ok(())
    }

    /// The same beside what runs.
    fn again(&self, running: &Candidate, text: &str) -> Result<(), String> {
        let Candidate { model, parts, context, book, kept, .. } = running;
        let text = Arc::new(text.to_string());
        let source = Source::read(&text, Format::Yaml, kept).map_err(|faults| explain(&faults))?;
        let former = Some(Former { model, parts, context });
        let (running, book) = (Some(model), Some(book));
        let against = Against { running, former, book, generation: 2, ..Against::NOTHING };
        let next = check_source(&source, &against).map_err(|faults| explain(&faults))?;
        self.time("again: read YAML", || Source::read(&text, Format::Yaml, kept).is_ok());
        self.time_with(
            "again: ids",
            || next.book.clone(),
            |mut ids| {
                let assigned = ids.assign_after(&next.model, model, 3, &Unheld).is_ok();
                (ids, assigned)
            },
        );
        let former = Former { model, parts, context };
        self.time("again: compile", || compile_after(&next.model, &next.book, 2, former).errors.is_empty());
        self.time("again: diff", || diff(model, &next.model).changed.len());
        self.time("again: check", || check_source(&source, &against).is_ok());
        Ok(())
    }

    /// What a worker is held up by. The old snapshot is still held elsewhere, as in a running process.
    fn worker(&self, texts: &[String; 2]) -> Result<(), String> {
        let [one, other] =
            [candidate(&texts[0], &Against::NOTHING)?, candidate(&texts[1], &Against::NOTHING)?];
        let mut worker = SteadyWorker::with(one.parts.clone(), 1_000);
        let snapshots = [Arc::new(Snapshot::build(other.parts)), Arc::new(Snapshot::build(one.parts))];
        // What it began with nobody else holds.
        worker.apply(Arc::clone(&snapshots[1]));
        let mut turn = 0;
        self.time("worker", || {
            worker.apply(Arc::clone(&snapshots[turn % 2]));
            turn += 1;
        });
        Ok(())
    }

    /// From the client's first byte on the control socket to the answer, which comes when every worker has it; with a
    /// worker that has nothing else to do.
    fn whole(&self, texts: &[String; 2]) -> Result<(), String> {
        let folder = std::env::temp_dir().join(format!("sluice-apply-{}", std::process::id()));
        let socket = folder.join("sluice.sock");
        let running = candidate(&texts[0], &Against::NOTHING)?;
        let (started, ready) = std::sync::mpsc::channel();
        let path = socket.clone();
        std::thread::spawn(move || started.send(serve(running, &path)));
        while !socket.exists() {
            if let Ok(Err(why)) = ready.try_recv() {
                return Err(why);
            }
            std::thread::yield_now();
        }
        let (client, mut turn) = (Client::new(&socket), 0);
        let next = |turn: &mut usize| {
            *turn += 1;
            ("application/yaml", texts[*turn % 2].clone())
        };
        self.time("whole: socket to answer", || {
            client.request("PUT".parse().unwrap_or_default(), "/v1/config", Some(next(&mut turn))).is_ok()
        });
        std::fs::remove_dir_all(&folder).map_err(|why| why.to_string())
    }

    fn time<T>(&self, name: &str, mut run: impl FnMut() -> T) {
        self.time_with(name, || (), |()| run());
    }

    /// `make` and the end of what `run` returns are not timed.
    fn time_with<I, T>(&self, name: &str, make: impl Fn() -> I, mut run: impl FnMut(I) -> T) {
        if self.only.as_ref().is_some_and(|only| only != name) {
            return;
        }
        let took = (0..self.rounds).map(|_| {
            let input = make();
            let start = Instant::now();
            let output = std::hint::black_box(run(input));
            let took = start.elapsed().as_secs_f64() * 1e3;
            drop(output);
            took
        });
        let took: Vec<f64> = took.collect();
        let (low, high) = range(&took);
        println!("{name:<22} {:9.3} ms ({low:.3} to {high:.3})", median(&took));
    }
}

/// A process of one worker, on a memory port that nothing comes in by.
fn serve(running: Candidate, socket: &std::path::Path) -> Result<(), String> {
    let words = |why: std::io::Error| why.to_string();
    let queue: Box<dyn PortQueue> = Box::new(memory::pair(64).0);
    let port = OpenPort { info: memory::info("wire", Mac([2, 0, 0, 0, 0, 1])), queues: vec![queue] };
    let opened = Opened { ports: vec![port], pools: vec![FramePool::new(64)], cores: vec![None] };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(words)?;
    runtime.block_on(async {
        let process = Process::start(running, opened, Telemetry::default()).map_err(words)?;
        api::serve(Arc::new(process), ControlSocket::bind(socket)?).await.map_err(words)
    })
}

fn read(text: &str) -> Result<Node<'_>, String> {
    parse::read(text, Format::Yaml).map_err(|faults| explain(&faults))
}

fn candidate(text: &str, against: &Against<'_>) -> Result<Candidate, String> {
    let (text, kept) = (Arc::new(text.to_string()), Kept::default());
    let source = Source::read(&text, Format::Yaml, &kept).map_err(|faults| explain(&faults))?;
    check_source(&source, against).map_err(|faults| explain(&faults))
}

fn explain(faults: &[parse::Fault]) -> String {
    faults.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn limits() -> Limits {
    Limits { virtual_servers: 1 << 16, ..Limits::default() }
}

fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let place = arguments.iter().position(|word| word == name)?;
    arguments.get(place + 1).map(String::as_str)
}

fn number<T: std::str::FromStr>(arguments: &[String], name: &str, default: T) -> Result<T, String> {
    match option(arguments, name) {
        Some(text) => text.parse().map_err(|_| format!("{name}: {text}: not a number")),
        None => Ok(default),
    }
}
