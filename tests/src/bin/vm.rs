//! `berth-vm`: a Berth machine for the developer, and what the Justfile's recipes do with it.
//!
//! `up` makes the machine of that name or brings it to the present build; `down`, `sh`, `berth` and `logs` are for the
//! machine that `up` made. `boot`, `exec`, `put` and `end` do single steps with bare machines of any name.

use std::error::Error;
use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{self, ExitCode};
use std::thread;

use berth_tests::channel::{Event, Output, Stdin};
use berth_tests::guest::{self, Flavor};
use berth_tests::image::Recipe;
use berth_tests::machine::{self, Machine, Plan};
use berth_tests::saved::{API, Parts, REGISTRY};
use berth_tests::{http, image, images, pace, payload, postgres, spawn};

type Failure = Box<dyn Error>;

/// The developer's machine.
const UP: &str = "up";
/// The port of the machine that leads to nginx.
const WEB: u16 = 8080;
const SERVICE: &str = "127.0.0.1:5000/nginx:1";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run(&words).unwrap_or_else(|err| {
        let causes = std::iter::successors(err.source(), |cause| (*cause).source());
        eprintln!("berth-vm: {}", causes.fold(err.to_string(), |text, cause| format!("{text}: {cause}")));
        ExitCode::FAILURE
    })
}

fn run(words: &[&str]) -> Result<ExitCode, Failure> {
    match words {
        ["up"] => up()?,
        ["down"] => down()?,
        ["sh"] => return shell(),
        ["berth", arguments @ ..] => return exec(UP, &[&["berth"], arguments].concat()),
        ["logs"] => {
            return exec(UP, &["journalctl", "--no-pager", "-b", "-u", "berthd", "-u", "berth-setup", "-u", "berth.*"]);
        }
        ["logs", arguments @ ..] => return exec(UP, &[&["journalctl", "--no-pager", "-b"], arguments].concat()),
        ["payload"] => println!("{}", payload::build()?.path.display()),
        ["guest"] => println!("{}", guest::build(Flavor::Test)?.root().display()),
        ["images"] => print_images()?,
        ["image"] => publish()?,
        ["bench"] => berth_tests::bench::run()?,
        ["boot", name, ports @ ..] => boot(name, ports)?,
        ["exec", name, argv @ ..] => return exec(name, argv),
        ["put", name, from, to] => put(name, from, to)?,
        ["end", name] => Machine::find(&machine::home(name)?)?.remove()?,
        _ => {
            return Err(
                "usage: berth-vm up|down|sh|berth|logs|payload|guest|images|image|bench|boot|exec|put|end ...".into()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the machine, or brings the running one to the present build; then the service, if it is not there.
fn up() -> Result<(), Failure> {
    let home = machine::home(UP)?;
    let parts = Parts::build(Flavor::Test)?;
    let wanted = format!("{} {}", parts.payload.key, parts.images.key);
    let changed = fs::read_to_string(home.join("made-from")).unwrap_or_default() != wanted;
    if let Err(machine::MachineError::NotRunning(_)) = Machine::find(&home) {
        let plan = Plan { stays: true, forwards: vec![WEB, postgres::PORT], ..Plan::new(UP) };
        // From here on it stays, whatever goes wrong with the rest: one can look at it.
        parts.ready_in(machine::new_home(UP)?, &plan)?.leave_running()?;
    } else if changed {
        eprintln!("installing the new package; services run on");
        let machine = find(UP)?;
        machine.put("/run/berth.deb", &fs::read(&parts.payload.path)?, 0o644)?;
        machine.install("/run/berth.deb")?;
        parts.images.push(machine.forwarded(REGISTRY))?;
    }
    let machine = find(UP)?;
    fs::write(home.join("made-from"), wanted)?;
    if install(&machine)? || changed {
        copy_keys(&machine)?;
    }
    eprintln!("PostgreSQL, on an encrypted volume, with a password that was drawn for it");
    eprintln!("{}", postgres::install(&machine)?);
    greet(&machine)
}

/// Installs nginx through the command line, unless it is there; whether it did.
fn install(machine: &Machine) -> Result<bool, Failure> {
    if machine.sh("berth status nginx")?.success() {
        return Ok(false);
    }
    eprintln!("installing nginx: berth install {SERVICE} --publish {WEB}:80");
    eprintln!("{}", machine.ok(&format!("berth install {SERVICE} --publish {WEB}:80 --timeout 5m"))?);
    Ok(true)
}

/// The token and the authority, for programs on this machine.
fn copy_keys(machine: &Machine) -> Result<(), Failure> {
    for (from, to) in [("/var/lib/berth/token", "token"), ("/var/lib/berth/keys/ca.crt", "ca.crt")] {
        let path = machine.home().join(to);
        let mut file = fs::File::create(&path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(&machine.get(from)?)?;
    }
    Ok(())
}

fn greet(machine: &Machine) -> Result<(), Failure> {
    let (web, api) = (machine.forwarded(WEB), machine.forwarded(API));
    let (code, page) = http::get(web, "/", pace::boots(1.0))?;
    if code != 200 {
        return Err(format!("http://127.0.0.1:{web}/ answered {code}: {page}").into());
    }
    let home = machine.home().display();
    println!("page      http://127.0.0.1:{web}/ says: {}", page.trim());
    let question = "SELECT 'PostgreSQL ' || current_setting('server_version') || ' counts to ' || count(*) FROM generate_series(1, 1000)";
    println!("postgres  127.0.0.1:{} says: {}", machine.forwarded(postgres::PORT), postgres::ask(machine, question)?);
    println!("API       https://127.0.0.1:{api}");
    println!("token     {home}/token");
    println!("authority {home}/ca.crt");
    println!("\nTry:");
    println!("  ./dev berth status");
    println!("  ./dev berth update nginx --image 127.0.0.1:5000/nginx:2 && curl http://127.0.0.1:{web}/");
    println!("  ./dev berth exec postgres -- psql --username postgres --command '\\l'");
    println!("  ./dev sh          # then: systemctl status 'berth.*.service'");
    Ok(())
}

/// The appliance's image, ready to be downloaded.
fn publish() -> Result<(), Failure> {
    let (payload, images) = (payload::build()?, images::build()?);
    let version = env!("CARGO_PKG_VERSION");
    let image = image::build(Recipe { payload: &payload, images: &images, version, changes: None })?;
    let folder = berth_tests::tree::top().join("target/image");
    for (name, bytes) in image::publish::publish(&image, &folder)? {
        println!("{:>9.1} MB  {}", bytes as f64 / 1e6, folder.join(name).display());
    }
    Ok(())
}

fn down() -> Result<(), Failure> {
    match Machine::find(&machine::home(UP)?) {
        Ok(machine) => Ok(machine.remove()?),
        Err(machine::MachineError::NotRunning(_)) => {
            println!("nothing is up");
            Ok(())
        }
        Err(err) => Err(err.into()),
    }
}

fn print_images() -> Result<(), Failure> {
    let images = images::build()?;
    for name in images.names()? {
        println!("{name}  {}", images.layout(&name).display());
    }
    Ok(())
}

/// A bare machine, without the package.
fn boot(name: &str, ports: &[&str]) -> Result<(), Failure> {
    let guest = guest::build(Flavor::Test)?;
    let mut plan = Plan { stays: true, ..Plan::new(name) };
    for port in ports {
        plan.forwards.push(port.parse()?);
    }
    let machine = plan.boot_in(machine::new_home(name)?, &guest, None)?;
    for port in &machine.plan().forwards {
        println!("port {port} of the guest is 127.0.0.1:{}", machine.forwarded(*port));
    }
    println!("{name} is up in {}", machine.home().display());
    Ok(machine.leave_running()?)
}

fn find(name: &str) -> Result<Machine, Failure> {
    let mut machine = Machine::find(&machine::home(name)?)?;
    machine.connect(pace::boots(2.0))?;
    Ok(machine)
}

fn put(name: &str, from: &str, to: &str) -> Result<(), Failure> {
    Ok(find(name)?.put(to, &fs::read(Path::new(from))?, 0o755)?)
}

/// Runs a command with this process's standard streams; its exit code is ours.
fn exec(name: &str, argv: &[&str]) -> Result<ExitCode, Failure> {
    let machine = find(name)?;
    relay(&machine, argv, !std::io::stdin().is_terminal())
}

/// A shell on a terminal of its own in the guest, the terminal here being raw meanwhile.
fn shell() -> Result<ExitCode, Failure> {
    let machine = find(UP)?;
    if !std::io::stdin().is_terminal() {
        return relay(&machine, &["/bin/bash"], true);
    }
    let size = stty(&["size"])?;
    let (rows, columns) = size.trim().split_once(' ').unwrap_or(("24", "80"));
    let before = stty(&["-g"])?;
    stty(&["raw", "-echo"])?;
    let line = format!("stty rows {rows} cols {columns}; TERM=xterm-256color exec bash -l");
    let done = relay(&machine, &["script", "--quiet", "--command", &line, "/dev/null"], true);
    stty(&[before.trim()])?;
    done
}

fn stty(arguments: &[&str]) -> Result<String, Failure> {
    let out = spawn::command("stty").args(arguments).stdin(process::Stdio::inherit()).output()?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn relay(machine: &Machine, argv: &[&str], with_input: bool) -> Result<ExitCode, Failure> {
    let running = machine.channel().start(argv, &[])?;
    let stdin = running.stdin();
    if with_input {
        // Never joined: it may wait for our input for ever.
        thread::spawn(move || feed(stdin));
    } else {
        stdin.close()?;
    }
    loop {
        match running.next(pace::boots(10_000.0))? {
            Event::Output(bytes) => show(&mut std::io::stdout(), &bytes)?,
            Event::Error(bytes) => show(&mut std::io::stderr(), &bytes)?,
            Event::Ended(ended) => {
                let code = Output { ended, stdout: Vec::new(), stderr: Vec::new() }.code();
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)));
            }
        }
    }
}

fn show(to: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    to.write_all(bytes)?;
    Ok(to.flush()?)
}

fn feed(stdin: Stdin) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let sent = match std::io::stdin().read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => stdin.write(&buffer[..read]),
        };
        if sent.is_err() {
            return;
        }
    }
    // The command may have ended already.
    let _ended = stdin.close();
}
