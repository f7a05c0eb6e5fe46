//! Keeps operations in flight on the queues of a mounted filesystem.

use std::ffi::CString;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use fuse_wire::abi::ForgetIn;
use fuse_wire::{NodeId, Operation};
use virtio_fs_guest::{Error as GuestError, Mount, PageReuse, Payload, Queue, Token};

use crate::measure::Recorder;
use crate::rows::{Data, Job, Names, Row, Script};
use crate::served::Files;
use crate::steps::{self, State, Step};
use crate::{Error, site};

/// Operations with names of their own before what they left behind is removed.
pub(crate) const BATCH: u64 = 256;
/// FORGETs in flight of which the completions are taken.
const FORGETS: usize = 32;
/// What is done beside the row that waits for no disk.
const FSYNC: [Step; 2] = [steps::write_dirty, steps::fsync];

/// Does the operations of `row`; each thread is given a `recorder`, which says when time is up.
///
/// A row's depth is spread over the request queues, each with a thread of its own; queues beyond
/// the depth stay idle.
pub(crate) fn drive(
    mount: &mut Mount,
    files: &Files,
    row: &Row,
    work: &Path,
    recorder: impl Fn() -> Recorder,
) -> Result<Recorder, Error> {
    let guest = |source| Error::Guest {
        row: row.name,
        source,
    };
    if let Job::Walk { guest: walk, .. } = row.job {
        return one_at_a_time(mount, recorder(), |mount| walk(mount, files)).map_err(guest);
    }
    let Some((hiprio, queues)) = mount.connection().queues().split_first_mut() else {
        unreachable!("a device has a queue for FORGET")
    };
    let hiprio = Mutex::new(hiprio);
    let used = queues.len().min(row.depth);
    let lane = |index: usize, queue| Driver {
        row,
        files,
        work,
        index,
        count: used,
        queue,
        hiprio: &hiprio,
    };
    let mut drivers = queues[..used].iter_mut().enumerate();
    // Without a thread where there is but one.
    let recorders = if used == 1 {
        drivers
            .next()
            .map(|(n, queue)| lane(n, queue).run(recorder()))
            .into_iter()
            .collect()
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> = drivers
                .map(|(n, queue)| lane(n, queue))
                .map(|mut driver| {
                    let recorder = recorder();
                    scope.spawn(move || driver.run(recorder))
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread
                    .join()
                    .unwrap_or_else(|e| std::panic::resume_unwind(e))
            };
            threads.into_iter().map(join).collect::<Vec<_>>()
        })
    };
    let merged = recorders.into_iter().reduce(|all, one| {
        let mut all = all?;
        all.merge(one?);
        Ok(all)
    });
    let hiprio = hiprio.into_inner().unwrap_or_else(PoisonError::into_inner);
    settle(hiprio).map_err(guest)?;
    merged.unwrap_or_else(|| unreachable!("a device has a request queue"))
}

/// Sends FORGET, and waits for nothing.
pub(crate) fn forget(hiprio: &mut Queue, node: NodeId) -> Result<(), GuestError> {
    if hiprio.in_flight() >= FORGETS {
        settle(hiprio)?;
    }
    let operation = Operation::Forget(ForgetIn { nlookup: 1 });
    hiprio.submit(node, operation, Payload::None)?;
    Ok(())
}

/// Waits for all FORGETs.
fn settle(hiprio: &mut Queue) -> Result<(), GuestError> {
    while hiprio.in_flight() > 0 {
        hiprio.wait()?.result()?;
    }
    Ok(())
}

fn one_at_a_time(
    mount: &mut Mount,
    mut recorder: Recorder,
    operation: impl Fn(&mut Mount) -> Result<(), GuestError>,
) -> Result<Recorder, GuestError> {
    loop {
        let began = Instant::now();
        operation(mount)?;
        if recorder.record(began) {
            break;
        }
    }
    settle(mount.connection().hiprio())?;
    Ok(recorder)
}

/// One thread with its queue.
struct Driver<'a, 'q> {
    row: &'a Row,
    files: &'a Files,
    work: &'a Path,
    /// Of so many.
    index: usize,
    count: usize,
    queue: &'a mut Queue,
    hiprio: &'a Mutex<&'q mut Queue>,
}

/// An operation in flight, or room for one.
struct Lane {
    task: Task,
    state: State,
    /// Requests that are done.
    step: usize,
    began: Instant,
    /// Whether it counts, or is only there.
    recorded: bool,
}

#[derive(Clone, Copy)]
enum Task {
    Steps {
        steps: &'static [Step],
        forgets: bool,
    },
    Data(Data),
}

impl Driver<'_, '_> {
    fn run(&mut self, mut recorder: Recorder) -> Result<Recorder, Error> {
        let (task, beside) = match self.row.job {
            Job::Script(Script { steps, forgets, .. }) => (Task::Steps { steps, forgets }, false),
            Job::Data(data) => (Task::Data(data), false),
            Job::BesideFsync(data) => (Task::Data(data), true),
            Job::Walk { .. } => unreachable!("walks are not in flight beside others"),
        };
        self.queue.set_page_reuse(match task {
            Task::Data(data) => data.buffers,
            Task::Steps { .. } => PageReuse::default(),
        });
        // The first ones get what cannot be shared out evenly.
        let depth =
            self.row.depth / self.count + usize::from(self.index < self.row.depth % self.count);
        let lane = |n: usize| Lane::new(task, &format!("{}-{n}", self.index));
        let mut lanes: Vec<Lane> = (0..depth).map(lane).collect();
        if beside {
            let steps = Task::Steps {
                steps: &FSYNC,
                forgets: false,
            };
            lanes.push(Lane {
                recorded: false,
                ..Lane::new(steps, "fsync")
            });
        }
        self.run_lanes(&mut lanes, &mut recorder)?;
        Ok(recorder)
    }

    fn run_lanes(&mut self, lanes: &mut [Lane], recorder: &mut Recorder) -> Result<(), Error> {
        let guest = |source| Error::Guest {
            row: self.row.name,
            source,
        };
        let names = match self.row.job {
            Job::Script(script) => script.names,
            _ => Names::Same,
        };
        if names == Names::Same {
            return self.batch(lanes, &[], recorder).map(drop).map_err(guest);
        }
        let name = |n: u64| steps::names(&n.to_string());
        let all: Vec<[CString; 2]> = (0..BATCH).map(name).collect();
        let site = |source| Error::Io {
            doing: "make or remove files of the shared directory",
            source,
        };
        loop {
            if names == Names::Files {
                recorder
                    .pause(|| site::make_files(self.work, &all))
                    .map_err(site)?;
            }
            let over = self.batch(lanes, &all, recorder).map_err(guest)?;
            recorder.pause(|| site::clear(self.work)).map_err(site)?;
            if over {
                return Ok(());
            }
        }
    }

    /// Does operations until time is up, and then returns true, or, where there are `names` for
    /// them, until those are used up.
    fn batch(
        &mut self,
        lanes: &mut [Lane],
        names: &[[CString; 2]],
        recorder: &mut Recorder,
    ) -> Result<bool, GuestError> {
        let mut idle: Vec<usize> = (0..lanes.len()).rev().collect();
        let mut by_slot = vec![0; usize::from(self.queue.size())];
        let mut number = self.index as u64;
        let (mut started, mut over) = (0, false);
        loop {
            while !over && (names.is_empty() || started < names.len()) {
                let Some(index) = idle.pop() else { break };
                let lane = &mut lanes[index];
                if let Some(names) = names.get(started) {
                    lane.state.names.clone_from(names);
                }
                lane.state.number = number;
                number += self.count as u64;
                started += 1;
                (lane.step, lane.began) = (0, Instant::now());
                by_slot[usize::from(self.send(lane)?.slot())] = index;
            }
            if self.queue.in_flight() == 0 {
                return Ok(over);
            }
            let mut completion = self.queue.wait()?;
            let index = by_slot[usize::from(completion.token().slot())];
            let lane = &mut lanes[index];
            completion.result()?;
            if lane.keeps_reply() {
                lane.state.keep(&completion.reply()?);
            }
            drop(completion);
            lane.step += 1;
            if lane.step < lane.steps() {
                by_slot[usize::from(self.send(lane)?.slot())] = index;
                continue;
            }
            if lane.recorded {
                over |= recorder.record(lane.began);
            }
            if lane.forgets() {
                let mut hiprio = self.hiprio.lock().unwrap_or_else(PoisonError::into_inner);
                forget(&mut hiprio, lane.state.node)?;
            }
            idle.push(index);
        }
    }

    fn send(&mut self, lane: &Lane) -> Result<Token, GuestError> {
        match lane.task {
            Task::Steps { steps, .. } => steps[lane.step](&lane.state, self.files, self.queue),
            Task::Data(data) => steps::transfer(&data, lane.state.number, self.files, self.queue),
        }
    }
}

impl Lane {
    fn new(task: Task, id: &str) -> Self {
        Self {
            task,
            state: State::new(id),
            step: 0,
            began: Instant::now(),
            recorded: true,
        }
    }

    const fn steps(&self) -> usize {
        match self.task {
            Task::Steps { steps, .. } => steps.len(),
            Task::Data(_) => 1,
        }
    }

    const fn forgets(&self) -> bool {
        matches!(self.task, Task::Steps { forgets: true, .. })
    }

    /// Whether something comes after the request in flight that needs to know of its reply.
    const fn keeps_reply(&self) -> bool {
        self.forgets() || self.step + 1 < self.steps()
    }
}
