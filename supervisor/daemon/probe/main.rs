//! The only program of the image that `berth diagnostics` tries the machine with. It stands alone: no other file is in
//! the image, so `build.rs` links it with all it needs and puts it into `berthd`.
//!
//! ```text
//! berth-probe serve FILE WORD PORT    writes WORD to FILE and reads it back, says so, answers every connection with it
//! berth-probe look-up NAME            says which addresses NAME has
//! berth-probe read FILE               says what is in FILE
//! ```

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, ToSocketAddrs};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["serve", file, word, port] => serve(file, word, port),
        ["look-up", name] => look_up(name),
        ["read", file] => read(file),
        _ => Err("usage: berth-probe serve FILE WORD PORT | look-up NAME | read FILE".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(file: &str, word: &str, port: &str) -> Result<(), Box<dyn Error>> {
    let mut kept = File::create(file)?;
    kept.write_all(word.as_bytes())?;
    kept.sync_all()?;
    let back = fs::read_to_string(file)?;
    if back != word {
        return Err(format!("wrote {word:?} to {file} and read {back:?}").into());
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.parse()?))?;
    println!("berth-probe {word} is up");
    for stream in listener.incoming() {
        // Whoever hangs up early has looked whether somebody is there.
        if let Err(error) = stream.and_then(|mut stream| stream.write_all(word.as_bytes())) {
            eprintln!("berth-probe: a connection broke: {error}");
        }
    }
    Ok(())
}

fn look_up(name: &str) -> Result<(), Box<dyn Error>> {
    for address in (name, 0).to_socket_addrs()? {
        println!("{}", address.ip());
    }
    Ok(())
}

fn read(file: &str) -> Result<(), Box<dyn Error>> {
    print!("{}", fs::read_to_string(file)?);
    Ok(())
}
