//! The pickles that torch writes for a dictionary of tensors. Only the opcodes and the names that these need are known,
//! and nothing is executed: a call of anything but the two functions that make tensors and dictionaries is an error.

use std::rc::Rc;

/// A tensor of a pickle: a view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// The storage's type, such as `FloatStorage`.
    pub(super) kind: String,
    /// The storage's name in the archive.
    pub(super) storage: String,
    /// The first element.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
}

/// Why a pickle was refused.
#[derive(Debug, PartialEq)]
pub(super) enum Refused {
    Damaged(String),
    Global(String),
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self::Damaged(reason)
    }
}

/// The deepest that tuples may lie in each other: twice what tensors need.
const MOST_DEPTH: u8 = 8;

/// The most values that a pickle may have made: far more than the tensors of any model need.
const MOST_VALUES: usize = 4_000_000;

#[derive(Debug, Clone)]
enum Value {
    None,
    Bool,
    Int(i64),
    Text(Rc<str>),
    /// Its items, and how deep tuples lie in it.
    Tuple(Rc<[Value]>, u8),
    /// The pairs of a dictionary, which may still grow.
    Dictionary(Rc<std::cell::RefCell<Vec<(Value, Value)>>>),
    Global(&'static str),
    Storage {
        kind: &'static str,
        name: Rc<str>,
    },
    Tensor(Rc<View>),
    Mark,
}

const REBUILD: &str = "torch._utils._rebuild_tensor_v2";
const PARAMETER: &str = "torch._utils._rebuild_parameter";
const ORDERED: &str = "collections.OrderedDict";

/// The most dimensions of a tensor, and bytes of its name: what is memoised once may be used a million times, and is
/// copied for each use.
const MOST_DIMENSIONS: usize = 8;
const MOST_NAME: usize = 4096;

/// The names that tensors need.
const GLOBALS: [&str; 6] =
    [REBUILD, PARAMETER, ORDERED, "torch.FloatStorage", "torch.HalfStorage", "torch.BFloat16Storage"];

/// The tensors of a pickled dictionary, with their names.
pub(super) fn tensors(pickle: &[u8]) -> Result<Vec<(String, View)>, Refused> {
    let mut machine = Machine { bytes: pickle, at: 0, stack: Vec::new(), memo: Vec::new(), made: 0 };
    let Value::Dictionary(pairs) = machine.run()? else {
        return Err(Refused::Damaged("no dictionary".to_owned()));
    };
    let named = |(key, value): &(Value, Value)| match (key, value) {
        (Value::Text(name), _) if name.len() > MOST_NAME => {
            Err(Refused::Damaged(format!("a name of {} bytes", name.len())))
        }
        (Value::Text(name), Value::Tensor(view)) => Ok((name.to_string(), View::clone(view))),
        (Value::Text(name), _) => Err(Refused::Damaged(format!("`{name}` is no tensor"))),
        _ => Err(Refused::Damaged("a tensor without a name".to_owned())),
    };
    pairs.borrow().iter().map(named).collect()
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: Vec<Value>,
    made: usize,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Value, Refused> {
        loop {
            let at = self.at;
            let opcode = self.take(1)?[0];
            match opcode {
                b'\x80' => drop(self.take(1)?),
                b'\x95' => drop(self.take(8)?),
                b'.' => return self.pop(),
                b'(' => self.push(Value::Mark)?,
                b'}' => self.push(Value::Dictionary(Rc::default()))?,
                b')' => self.tuple(Vec::new())?,
                b'N' => self.push(Value::None)?,
                b'\x88' | b'\x89' => self.push(Value::Bool)?,
                b'K' => self.number(1)?,
                b'M' => self.number(2)?,
                b'J' => {
                    let number = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(number.into()))?;
                }
                b'\x8a' => {
                    let length = usize::from(self.take(1)?[0]);
                    if length > 7 {
                        return Err(Refused::Damaged(format!("a number of {length} bytes at {at}")));
                    }
                    self.number(length)?;
                }
                b'X' => {
                    let length = u32::from_le_bytes(self.array()?);
                    self.text(length as usize)?;
                }
                b'\x8c' => {
                    let length = usize::from(self.take(1)?[0]);
                    self.text(length)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(&format!("{module}.{name}"))?;
                }
                b'\x93' => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (module, name) else {
                        return Err(Refused::Damaged(format!("a name that is no text at {at}")));
                    };
                    self.global(&format!("{module}.{name}"))?;
                }
                b't' => {
                    let items = self.marked()?;
                    self.tuple(items)?;
                }
                b'\x85' | b'\x86' | b'\x87' => {
                    let count = usize::from(opcode - b'\x84');
                    let first = self.stack.len().checked_sub(count).ok_or_else(|| empty(at))?;
                    let items = self.stack.split_off(first);
                    self.tuple(items)?;
                }
                b'q' => {
                    let index = usize::from(self.take(1)?[0]);
                    self.remember(index)?;
                }
                b'r' => {
                    let index = u32::from_le_bytes(self.array()?) as usize;
                    self.remember(index)?;
                }
                b'\x94' => self.remember(self.memo.len())?,
                b'h' => {
                    let index = usize::from(self.take(1)?[0]);
                    self.recall(index)?;
                }
                b'j' => {
                    let index = u32::from_le_bytes(self.array()?) as usize;
                    self.recall(index)?;
                }
                b'Q' => {
                    let storage = storage(self.pop()?).ok_or_else(|| format!("no storage at {at}"))?;
                    self.push(storage)?;
                }
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    let made = call(&function, arguments).ok_or_else(|| format!("no such call at {at}"))?;
                    self.push(made)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.insert(vec![key, value])?;
                }
                b'u' => {
                    let items = self.marked()?;
                    self.insert(items)?;
                }
                // A dictionary's attributes, such as `_metadata`, which no tensor needs.
                b'b' => drop(self.pop()?),
                other => return Err(Refused::Damaged(format!("the opcode {other:#04x} at {at}"))),
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&[u8], Refused> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| format!("it ends within {count} bytes at {}", self.at))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn line(&mut self) -> Result<String, Refused> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or_else(|| format!("a line without an end at {}", self.at))?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    fn number(&mut self, length: usize) -> Result<(), Refused> {
        let number =
            self.take(length)?.iter().rev().fold(0i64, |number, &byte| (number << 8) | i64::from(byte));
        self.push(Value::Int(number))
    }

    fn text(&mut self, length: usize) -> Result<(), Refused> {
        let text: Rc<str> = String::from_utf8_lossy(self.take(length)?).into();
        self.push(Value::Text(text))
    }

    fn global(&mut self, name: &str) -> Result<(), Refused> {
        let known = GLOBALS.into_iter().find(|&known| known == name);
        self.push(Value::Global(known.ok_or_else(|| Refused::Global(name.to_owned()))?))
    }

    fn tuple(&mut self, items: Vec<Value>) -> Result<(), Refused> {
        let depth = |item: &Value| if let Value::Tuple(_, depth) = item { *depth } else { 0 };
        let depth = 1 + items.iter().map(depth).max().unwrap_or(0);
        if depth > MOST_DEPTH {
            return Err(Refused::Damaged(format!("tuples in tuples, {depth} deep, before {}", self.at)));
        }
        self.push(Value::Tuple(items.into(), depth))
    }

    fn push(&mut self, value: Value) -> Result<(), Refused> {
        self.made += 1;
        if self.made > MOST_VALUES {
            return Err(Refused::Damaged(format!("more than {MOST_VALUES} values")));
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, Refused> {
        self.stack.pop().ok_or_else(|| empty(self.at))
    }

    /// The values since the last mark.
    fn marked(&mut self) -> Result<Vec<Value>, Refused> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
        let items = self.stack.split_off(mark.ok_or_else(|| empty(self.at))? + 1);
        self.stack.pop();
        Ok(items)
    }

    fn remember(&mut self, index: usize) -> Result<(), Refused> {
        let value = self.stack.last().cloned().ok_or_else(|| empty(self.at))?;
        let length = self.memo.len();
        if index > length {
            return Err(Refused::Damaged(format!("place {index} of a memo of {length}")));
        }
        if index == length {
            self.memo.push(value);
        } else {
            self.memo[index] = value;
        }
        Ok(())
    }

    fn recall(&mut self, index: usize) -> Result<(), Refused> {
        let value = self.memo.get(index).cloned();
        self.push(value.ok_or_else(|| format!("place {index} of a memo of {}", self.memo.len()))?)
    }

    fn insert(&mut self, items: Vec<Value>) -> Result<(), Refused> {
        let Some(Value::Dictionary(pairs)) = self.stack.last() else {
            return Err(Refused::Damaged(format!("no dictionary before {}", self.at)));
        };
        if items.len() % 2 == 1 {
            return Err(Refused::Damaged(format!("a key without a value before {}", self.at)));
        }
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            // What a dictionary has besides tensors is not needed, and a dictionary could contain itself.
            let value = if let Value::Tensor(_) = value { value } else { Value::None };
            pairs.borrow_mut().push((key, value));
        }
        Ok(())
    }
}

fn empty(at: usize) -> Refused {
    Refused::Damaged(format!("nothing to take before {at}"))
}

/// `("storage", kind, name, device, elements)`.
fn storage(id: Value) -> Option<Value> {
    let Value::Tuple(items, _) = id else { return None };
    match &items[..] {
        [Value::Text(tag), Value::Global(kind), Value::Text(name), Value::Text(_), Value::Int(_)]
            if &**tag == "storage" =>
        {
            Some(Value::Storage { kind: kind.strip_prefix("torch.")?, name: Rc::clone(name) })
        }
        _ => None,
    }
}

/// A call of one of the functions that are known.
fn call(function: &Value, arguments: Value) -> Option<Value> {
    let (Value::Global(function), Value::Tuple(arguments, _)) = (function, arguments) else { return None };
    match (*function, &arguments[..]) {
        (ORDERED, []) => Some(Value::Dictionary(Rc::default())),
        (PARAMETER, [tensor @ Value::Tensor(_), ..]) => Some(tensor.clone()),
        (REBUILD, [Value::Storage { kind, name }, Value::Int(offset), shape, strides, ..]) => {
            let (shape, strides) = (numbers(shape)?, numbers(strides)?);
            let name = Some(name).filter(|name| name.len() <= MOST_NAME)?;
            let offset = u64::try_from(*offset).ok()?;
            let (kind, storage) = ((*kind).to_owned(), name.to_string());
            (shape.len() == strides.len())
                .then(|| Value::Tensor(Rc::new(View { kind, storage, offset, shape, strides })))
        }
        _ => None,
    }
}

fn numbers(tuple: &Value) -> Option<Vec<u64>> {
    let Value::Tuple(items, _) = tuple else { return None };
    let items = Some(items).filter(|items| items.len() <= MOST_DIMENSIONS)?;
    items
        .iter()
        .map(|item| if let Value::Int(number) = item { u64::try_from(*number).ok() } else { None })
        .collect()
}
