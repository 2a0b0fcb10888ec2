//! `berth-vm`: guests by hand. The recipes of the Justfile call it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use berth_tests::channel::Event;
use berth_tests::machine::{self, Machine, Plan};
use berth_tests::{guest, pace};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["boot", name, ports @ ..] => boot(name, ports),
        ["exec", name, argv @ ..] => return exec(name, argv).unwrap_or_else(|err| tell(&*err)),
        ["put", name, from, to] => put(name, from, to),
        ["end", name] => end(name),
        _ => Err("usage: berth-vm boot|exec|put|end <name> ...".into()),
    };
    done.map_or_else(|err| tell(&*err), |()| ExitCode::SUCCESS)
}

fn tell(err: &dyn std::error::Error) -> ExitCode {
    eprint!("berth-vm: {err}");
    let mut cause = err.source();
    while let Some(err) = cause {
        eprint!(": {err}");
        cause = err.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

fn boot(name: &str, ports: &[&str]) -> Result<(), Failure> {
    let guest = guest::build(guest::Flavor::Test)?;
    let home = machine::new_home(name)?;
    let mut plan = Plan { stays: true, ..Plan::new(name) };
    for port in ports {
        plan.forwards.push(port.parse()?);
    }
    let machine = plan.boot_in(home, &guest, None)?;
    for port in &machine.plan().forwards {
        println!("port {port} of the guest is 127.0.0.1:{}", machine.forwarded(*port));
    }
    println!("{} is up in {}", name, machine.home().display());
    Ok(machine.leave_running()?)
}

fn find(name: &str) -> Result<Machine, Failure> {
    let mut machine = Machine::find(&machine::home(name)?)?;
    machine.connect(pace::boots(2.0))?;
    Ok(machine)
}

fn exec(name: &str, argv: &[&str]) -> Result<ExitCode, Failure> {
    let machine = find(name)?;
    let running = machine.channel().start(argv, &[])?;
    running.input_end()?;
    loop {
        match running.next(pace::boots(1000.0))? {
            Event::Output(bytes) => std::io::stdout().write_all(&bytes)?,
            Event::Error(bytes) => std::io::stderr().write_all(&bytes)?,
            Event::Ended(ended) => {
                std::io::stdout().flush()?;
                let output = berth_tests::channel::Output { ended, stdout: Vec::new(), stderr: Vec::new() };
                return Ok(ExitCode::from(u8::try_from(output.code()).unwrap_or(255)));
            }
        }
    }
}

fn put(name: &str, from: &str, to: &str) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    std::fs::File::open(Path::new(from))?.read_to_end(&mut bytes)?;
    Ok(find(name)?.put(to, &bytes, 0o755)?)
}

fn end(name: &str) -> Result<(), Failure> {
    Ok(Machine::find(&machine::home(name)?)?.remove()?)
}
