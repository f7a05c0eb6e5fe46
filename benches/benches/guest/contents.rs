//! What both shares hold, and what is unpacked in them.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// Bytes of the file that fio(1) reads and writes; `workload.sh` says so to fio.
const DATA: usize = 128 << 20;
/// Directories of the tree and of the repository.
const DIRECTORIES: usize = 50;
/// Files in each.
const FILES: usize = 20;
/// Programs' parts that are compiled.
const UNITS: usize = 6;

/// Fills a directory to be shared: `data` for fio, a tree in `tree.tar`, a `repository`, a `project`
/// to compile.
pub(crate) fn fill(share: &Path) -> io::Result<()> {
    let block: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    fs::write(share.join("data"), block.repeat(DATA / block.len()))?;
    make_project(&share.join("project"))?;
    let repository = share.join("repository");
    make_tree(&repository)?;
    run(&repository, "tar", &["-cf", "../tree.tar", "."])?;
    run(&repository, "git", &["init", "--quiet"])?;
    run(&repository, "git", &["add", "."])?;
    let identity = ["-c", "user.name=host", "-c", "user.email=host@example.org"];
    let commit = ["commit", "--quiet", "-m", "All files"];
    run(&repository, "git", &[&identity[..], &commit[..]].concat())
}

/// Small files, of 0 to 8 KiB.
fn make_tree(path: &Path) -> io::Result<()> {
    for directory in 0..DIRECTORIES {
        let directory = path.join(format!("d{directory}"));
        fs::create_dir_all(&directory)?;
        for file in 0..FILES {
            let content = format!("file {file}, some text\n").repeat(file * 17);
            fs::write(directory.join(format!("f{file}")), content)?;
        }
    }
    Ok(())
}

/// A program in C, with headers of its own and some of the system's.
fn make_project(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path.join("include"))?;
    let objects: Vec<String> = (0..UNITS).map(|unit| format!("unit{unit}.o")).collect();
    let makefile = format!(
        "CFLAGS = -Iinclude -O1\nOBJECTS = {}\nprogram: $(OBJECTS)\n\t$(CC) -o $@ $^\n\
         clean:\n\trm -f program $(OBJECTS)\n",
        objects.join(" ")
    );
    fs::write(path.join("Makefile"), makefile)?;
    for header in 0..UNITS * 4 {
        let content = format!("#pragma once\nstatic const int value{header} = {header};\n");
        fs::write(path.join(format!("include/h{header}.h")), content)?;
    }
    for unit in 0..UNITS {
        let includes: String = (0..UNITS * 4)
            .map(|header| format!("#include \"h{header}.h\"\n"))
            .collect();
        let body = match unit {
            0 => "#include <stdio.h>\nint main(void) { return printf(\"%d\\n\", value1) < 0; }\n"
                .into(),
            _ => format!("int unit{unit}(void) {{ return value{unit}; }}\n"),
        };
        fs::write(path.join(format!("unit{unit}.c")), includes + &body)?;
    }
    Ok(())
}

fn run(directory: &Path, program: &str, arguments: &[&str]) -> io::Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{program}: {status}"))),
    }
}
