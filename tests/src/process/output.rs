//! Where the output of a process goes: into memory, or to the end of a file.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

pub(super) enum Output {
    Kept {
        lines: Arc<Mutex<Vec<String>>>,
        readers: Vec<JoinHandle<()>>,
    },
    File {
        path: PathBuf,
        file: File,
        /// Before it stands what earlier processes wrote.
        from: u64,
    },
}

impl Output {
    pub(super) fn kept() -> Self {
        Self::Kept {
            lines: Arc::default(),
            readers: Vec::new(),
        }
    }

    pub(super) fn file(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::File {
            path: path.to_owned(),
            from: file.metadata().unwrap().len(),
            file,
        }
    }

    /// What the process gets as stdout and stderr.
    pub(super) fn target(&self) -> Stdio {
        match self {
            Self::Kept { .. } => Stdio::piped(),
            Self::File { file, .. } => file.try_clone().unwrap().into(),
        }
    }

    /// Begins to read what comes through pipes.
    pub(super) fn read(&mut self, child: &mut Child) {
        if let Self::Kept { lines, readers } = self {
            readers.push(keep(child.stdout.take().expect("piped"), lines));
            readers.push(keep(child.stderr.take().expect("piped"), lines));
        }
    }

    /// Waits for the rest, once the process has ended.
    pub(super) fn end(&mut self) {
        if let Self::Kept { readers, .. } = self {
            for reader in readers.drain(..) {
                let _read = reader.join();
            }
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Kept { lines, .. } => lines.lock().unwrap().join("\n"),
            Self::File { path, from, .. } => {
                let mut file = File::open(path).unwrap();
                file.seek(SeekFrom::Start(*from)).unwrap();
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            }
        }
    }
}

fn keep(from: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let lines = lines.clone();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    })
}
