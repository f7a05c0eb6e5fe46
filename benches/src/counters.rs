//! Counts what a process does, by the kernel's performance events (perf_event_open(2)): exact, and
//! without stopping it as a tracer does. A system call takes some 100 ns longer, and an allocation
//! some microseconds.

mod allocator;
mod tracepoint;

use std::ffi::CString;
use std::fs;
use std::io;

use perf_event::events::Software;
use perf_event::{Builder, Counter};

/// There is no such thread (errno(3)).
const ESRCH: i32 = 3;

/// Why something cannot be counted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum CounterError {
    #[error("the kernel's tracepoints cannot be read; that takes root and tracefs: {0}")]
    Tracepoint(io::Error),
    #[error("the kernel has no user-space probes (CONFIG_UPROBE_EVENTS): {0}")]
    Uprobes(io::Error),
    #[error("the daemon has no C library whose allocator could be watched")]
    NoAllocator,
    #[error("the C library cannot be read: {0}")]
    Library(object::read::Error),
    #[error("the kernel does not let us count; that takes root, or CAP_PERFMON: {0}")]
    Attach(io::Error),
    #[error("cannot {doing}: {source}")]
    Io {
        doing: &'static str,
        source: io::Error,
    },
}

/// What is counted of a process. To end it takes a second.
#[derive(Debug)]
pub struct Counters {
    /// The process.
    id: u32,
    /// Those of its threads that are counted.
    threads: Vec<i32>,
    syscalls: Result<Events, CounterError>,
    allocations: Result<Events, CounterError>,
}

/// How often something happened since the counters were attached; `None` where it is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// System calls.
    pub syscalls: Option<u64>,
    /// Calls of the C library's `malloc` and its kin.
    pub allocations: Option<u64>,
}

impl Counters {
    /// Counts what the process `id` does from now on.
    ///
    /// # Errors
    /// The process has ended.
    pub fn attach(id: u32) -> Result<Self, CounterError> {
        let mut counters = Self {
            id,
            threads: Vec::new(),
            syscalls: syscalls(),
            allocations: allocations(id),
        };
        counters.follow_new_threads()?;
        Ok(counters)
    }

    /// Counts also what the process does in threads that it has started since. They could inherit
    /// the events, but not user-space probes, for which Linux reads the path anew, from the memory
    /// of the process that starts the thread.
    ///
    /// # Errors
    /// The process has ended.
    pub fn follow_new_threads(&mut self) -> Result<(), CounterError> {
        for thread in threads(self.id)? {
            if self.threads.contains(&thread) {
                continue;
            }
            self.threads.push(thread);
            for events in [&mut self.syscalls, &mut self.allocations] {
                let followed = events.as_mut().ok().map(|events| events.follow(thread));
                if let Some(Err(source)) = followed {
                    *events = Err(CounterError::Attach(source));
                }
            }
        }
        Ok(())
    }

    /// What cannot be counted, and why.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, &CounterError)> {
        [
            ("system calls", &self.syscalls),
            ("allocations", &self.allocations),
        ]
        .into_iter()
        .filter_map(|(name, events)| Some((name, events.as_ref().err()?)))
    }

    /// How far it has come.
    ///
    /// # Errors
    /// A counter cannot be read.
    pub fn read(&mut self) -> Result<Totals, CounterError> {
        let read = |events: &mut Result<Events, CounterError>| {
            let events = events.as_mut().ok();
            events.map(Events::total).transpose()
        };
        let mut totals = || -> io::Result<Totals> {
            Ok(Totals {
                syscalls: read(&mut self.syscalls)?,
                allocations: read(&mut self.allocations)?,
            })
        };
        totals().map_err(|source| CounterError::Io {
            doing: "read a counter",
            source,
        })
    }
}

impl Totals {
    /// What came since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let difference = |now: Option<u64>, then| Some(now?.saturating_sub(then?));
        Self {
            syscalls: difference(self.syscalls, before.syscalls),
            allocations: difference(self.allocations, before.allocations),
        }
    }
}

/// Something that is counted in each thread of a process.
#[derive(Debug)]
struct Events {
    event: Event,
    counters: Vec<Counter>,
}

#[derive(Debug)]
enum Event {
    /// The tracepoint with this number.
    Tracepoint(u64),
    /// Calls of functions of a library, by where they begin in its file.
    Calls {
        /// `perf_event_attr.type`.
        kind: u32,
        library: CString,
        functions: Vec<u64>,
    },
}

impl Events {
    const fn new(event: Event) -> Self {
        let counters = Vec::new();
        Self { event, counters }
    }

    fn follow(&mut self, thread: i32) -> io::Result<()> {
        match &self.event {
            Event::Tracepoint(number) => {
                // It is another event in a moment.
                let mut builder = Builder::new(Software::DUMMY);
                let attributes = builder.attrs_mut();
                attributes.type_ = tracepoint::KIND;
                attributes.config = *number;
                self.counters.extend(open(&mut builder, thread)?);
            }
            Event::Calls {
                kind,
                library,
                functions,
            } => {
                for &function in functions {
                    let mut builder = Builder::new(Software::DUMMY);
                    let attributes = builder.attrs_mut();
                    attributes.type_ = *kind;
                    attributes.config = 0;
                    // The kernel reads it while the event is made.
                    attributes.__bindgen_anon_3.uprobe_path = library.as_ptr() as u64;
                    attributes.__bindgen_anon_4.probe_offset = function;
                    self.counters.extend(open(&mut builder, thread)?);
                }
            }
        }
        Ok(())
    }

    fn total(&mut self) -> io::Result<u64> {
        self.counters.iter_mut().map(Counter::read).sum()
    }
}

/// Begins to count; `None` where the thread has ended.
fn open(builder: &mut Builder<'_>, thread: i32) -> io::Result<Option<Counter>> {
    let opened = builder
        .observe_pid(thread)
        .include_kernel()
        .enabled(true)
        .build();
    match opened {
        Err(e) if e.raw_os_error() == Some(ESRCH) => Ok(None),
        opened => opened.map(Some),
    }
}

fn syscalls() -> Result<Events, CounterError> {
    let number = tracepoint::number("raw_syscalls/sys_enter").map_err(CounterError::Tracepoint)?;
    Ok(Events::new(Event::Tracepoint(number)))
}

fn allocations(id: u32) -> Result<Events, CounterError> {
    let kind = allocator::uprobe_kind().map_err(CounterError::Uprobes)?;
    let library = allocator::find(id)?;
    Ok(Events::new(Event::Calls {
        kind,
        functions: library.entry_points()?,
        library: library.path,
    }))
}

fn threads(id: u32) -> Result<Vec<i32>, CounterError> {
    let list = || -> io::Result<Vec<i32>> {
        fs::read_dir(format!("/proc/{id}/task"))?
            .map(|task| {
                let name = task?.file_name();
                let number = name.to_str().and_then(|name| name.parse().ok());
                number.ok_or_else(|| io::Error::other("a thread without a number"))
            })
            .collect()
    };
    list().map_err(|source| CounterError::Io {
        doing: "list the daemon's threads",
        source,
    })
}

#[cfg(test)]
mod tests;
