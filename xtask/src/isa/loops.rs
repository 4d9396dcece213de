//! The loops of a compiled shader and how many loads each has in flight. Knows no instruction set: a
//! module for each reads its disassembly into [`Instruction`]s.

use std::collections::BTreeMap;

/// What matters of an instruction here.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Instruction {
    pub kind: Kind,
    /// Where it may jump to, as an index.
    pub target: Option<usize>,
    /// Registers that it reads, where nothing but reading one waits for what was loaded into it.
    pub reads: Vec<u16>,
    /// Multiplications of floats.
    pub products: usize,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub(super) enum Kind {
    #[default]
    Other,
    /// Loads from a buffer into registers.
    Load(Vec<u16>),
    /// Stores to a buffer; `counted` where waits count it among the loads.
    Store { counted: bool },
    /// Waits until no more than this many are on their way. The first issued is the first to arrive.
    Wait(usize),
}

/// What a loop is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// Multiplies what it loads: an inner loop of a kernel.
    Sum,
    /// Adds to what it loads, and stores it.
    Add,
    /// Neither: it only copies.
    Copy,
}

/// The loads from buffers in one iteration of a loop.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Loop {
    pub role: Role,
    pub instructions: usize,
    pub products: usize,
    pub loads: usize,
    /// Loads on their way when the first of them is needed.
    pub in_flight: usize,
    /// How many times, one after the other, an iteration waits for as long as memory takes.
    pub waits: usize,
}

/// So many multiplications make a loop one that sums; addresses and staging have a few.
const PRODUCTS: usize = 16;

/// And so many for each store. Adding to halves can take a multiplication for each of a store's four numbers.
const PRODUCTS_OF_STORE: usize = 8;

/// The loops with loads, in the order of the text. What an inner loop does is not the outer's, and what only
/// does the rest of another is left out.
pub(super) fn loops(program: &[Instruction]) -> Vec<Loop> {
    // By the first instruction, the last that jumps back to it. Behind the end of NVIDIA's code one jumps to itself.
    let mut ends = BTreeMap::new();
    for (at, instruction) in program.iter().enumerate() {
        if let Some(start) = instruction.target.filter(|&target| target < at) {
            ends.insert(start, at);
        }
    }
    let own = |(&start, &end): (&usize, &usize)| {
        let inner: Vec<_> = ends.range(start + 1..=end).map(|(&start, &end)| start..=end).collect();
        let own = (start..=end).filter(|at| !inner.iter().any(|range| range.contains(at)));
        own.map(|at| &program[at]).collect::<Vec<_>>()
    };
    let mut loops: Vec<Loop> = ends.iter().map(own).filter_map(|body| measure(&body)).collect();
    // Compilers unroll a loop and put another behind it, for what is left over of the iterations.
    for at in (1..loops.len()).rev() {
        if loops[at].is_rest_of(&loops[at - 1]) {
            loops.remove(at);
        }
    }
    loops
}

impl Loop {
    /// Whether it does the same in smaller steps.
    fn is_rest_of(&self, other: &Self) -> bool {
        let same = self.products * other.loads == other.products * self.loads;
        self.role == Role::Sum && other.role == Role::Sum && same && self.loads < other.loads
    }
}

/// None for a loop without loads.
fn measure(body: &[&Instruction]) -> Option<Loop> {
    let loads = body.iter().filter(|instruction| matches!(instruction.kind, Kind::Load(_))).count();
    if loads == 0 {
        return None;
    }
    let products: usize = body.iter().map(|instruction| instruction.products).sum();
    let stores = body.iter().filter(|instruction| matches!(instruction.kind, Kind::Store { .. })).count();
    let role = if products >= PRODUCTS && products >= PRODUCTS_OF_STORE * stores {
        Role::Sum
    } else if stores > 0 {
        Role::Add
    } else {
        Role::Copy
    };
    let mut memory = Memory::default();
    memory.iteration(body);
    // The second iteration may need what the first has loaded, as every one after it.
    let before = memory.now;
    let in_flight = memory.iteration(body).unwrap_or(loads);
    let (instructions, waits) = (body.len(), memory.now - before);
    Some(Loop { role, instructions, products, loads, in_flight, waits })
}

/// Loads on their way. The unit of time is what a load takes; nothing else takes any.
#[derive(Default)]
struct Memory {
    now: usize,
    /// When what is loaded into a register arrives.
    registers: BTreeMap<u16, usize>,
    /// When what waits count arrives, in the order of issue.
    counted: Vec<usize>,
    /// Loads issued since `now` began.
    issued: usize,
}

impl Memory {
    /// How many loads are on their way when the iteration first has to wait, if it has to.
    fn iteration(&mut self, body: &[&Instruction]) -> Option<usize> {
        let mut first = None;
        for instruction in body {
            let arrivals = instruction.reads.iter().filter_map(|register| self.registers.get(register));
            let mut needed = arrivals.copied().max().unwrap_or(0);
            if let Kind::Wait(most) = instruction.kind {
                let arrived = self.counted.len().saturating_sub(most);
                needed = self.counted.drain(..arrived).max().unwrap_or(0).max(needed);
            }
            if needed > self.now {
                first.get_or_insert(self.issued);
                self.now = needed;
                self.issued = 0;
            }
            match &instruction.kind {
                Kind::Load(registers) => {
                    self.issued += 1;
                    self.counted.push(self.now + 1);
                    self.registers.extend(registers.iter().map(|&register| (register, self.now + 1)));
                }
                // Nobody waits for what a store brings.
                Kind::Store { counted: true } => self.counted.push(0),
                Kind::Store { counted: false } | Kind::Wait(_) | Kind::Other => {}
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::{Instruction, Kind, Loop, Role, loops};

    fn load(register: u16) -> Instruction {
        Instruction { kind: Kind::Load(vec![register]), ..Default::default() }
    }

    fn sum(register: u16) -> Instruction {
        Instruction { reads: vec![register], products: 16, ..Default::default() }
    }

    fn back(target: usize) -> Instruction {
        Instruction { target: Some(target), ..Default::default() }
    }

    fn in_flight(program: &[Instruction]) -> Vec<(usize, usize)> {
        loops(program).iter().map(|one| (one.in_flight, one.waits)).collect()
    }

    #[test]
    fn loads_together_are_waited_for_together() {
        let together = [load(1), load(2), load(3), sum(1), sum(2), sum(3), back(0)];
        assert_eq!(in_flight(&together), [(3, 1)]);
        let in_turn = [load(1), sum(1), load(2), sum(2), load(3), sum(3), back(0)];
        assert_eq!(in_flight(&in_turn), [(1, 3)]);
        // The next is on its way while one is waited for.
        let ahead = [load(1), load(2), sum(1), load(3), sum(2), sum(3), back(0)];
        assert_eq!(in_flight(&ahead), [(2, 2)]);
    }

    #[test]
    fn an_iteration_may_load_for_the_next() {
        let program = [load(1), load(2), sum(1), sum(2), load(1), load(2), back(2)];
        assert_eq!(in_flight(&program), [(2, 1)]);
    }

    #[test]
    fn a_loop_is_measured_without_those_inside() {
        let store = Instruction { kind: Kind::Store { counted: false }, ..Default::default() };
        let program = [
            Instruction::default(),
            load(9),
            load(8),
            // the inner loop
            load(1),
            sum(1),
            back(3),
            Instruction { reads: vec![9], ..Default::default() },
            store,
            back(1),
            // nothing to load
            sum(1),
            back(9),
            // the end
            back(11),
        ];
        let outer = Loop { role: Role::Add, instructions: 5, products: 0, loads: 2, in_flight: 2, waits: 1 };
        let inner = Loop { role: Role::Sum, instructions: 3, products: 16, loads: 1, in_flight: 1, waits: 1 };
        assert_eq!(loops(&program), [outer, inner]);
    }

    #[test]
    fn what_is_left_over_of_an_unrolled_loop_is_not_measured() {
        let unrolled = [load(1), load(2), sum(1), sum(2), back(0)];
        let rest = [load(1), sum(1), back(5)];
        assert_eq!(in_flight(&[&unrolled[..], &rest].concat()), [(2, 1)]);
        let another = [load(1), sum(1), sum(1), back(5)];
        assert_eq!(in_flight(&[&unrolled[..], &another].concat()), [(2, 1), (1, 1)]);
    }
}
