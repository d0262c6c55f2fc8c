//! Unified differences as Python's difflib finds them, whose Go port upstream uses: the longest common block first,
//! lines that occur too often left out of account.

use std::collections::HashMap;
use std::fmt::Write;

/// Lines of context around a difference.
const CONTEXT: usize = 3;

/// The unified diff of two texts, without a header.
pub(super) fn unified(a: &str, b: &str) -> String {
    let (a, b) = (lines(a), lines(b));
    let blocks = Matcher::new(&a, &b).blocks();
    let mut out = String::new();
    for group in groups(&opcodes(&blocks)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let ranges = [(first.a.0, last.a.1), (first.b.0, last.b.1)];
        let _ = writeln!(out, "@@ -{} +{} @@", range(ranges[0]), range(ranges[1]));
        for code in &group {
            let mut put = |sign: char, lines: &[String]| {
                lines.iter().for_each(|line| out.push_str(&format!("{sign}{line}")));
            };
            if code.equal {
                put(' ', &a[code.a.0..code.a.1]);
            } else {
                put('-', &a[code.a.0..code.a.1]);
                put('+', &b[code.b.0..code.b.1]);
            }
        }
    }
    out
}

fn lines(text: &str) -> Vec<String> {
    text.split('\n').map(|line| format!("{line}\n")).collect()
}

fn range((start, end): (usize, usize)) -> String {
    match end - start {
        1 => format!("{}", start + 1),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

/// A run of lines that are equal, or replaced.
#[derive(Clone, Copy)]
struct Opcode {
    equal: bool,
    a: (usize, usize),
    b: (usize, usize),
}

/// Equal runs: place in both and length.
type Block = (usize, usize, usize);

fn opcodes(blocks: &[Block]) -> Vec<Opcode> {
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    for &(a, b, size) in blocks {
        if i < a || j < b {
            out.push(Opcode { equal: false, a: (i, a), b: (j, b) });
        }
        (i, j) = (a + size, b + size);
        if size > 0 {
            out.push(Opcode { equal: true, a: (a, i), b: (b, j) });
        }
    }
    out
}

/// Runs with a little context, cut where equal runs are long.
fn groups(codes: &[Opcode]) -> Vec<Vec<Opcode>> {
    let mut codes = codes.to_vec();
    let keep_end = |code: &mut Opcode| {
        code.a.0 = code.a.0.max(code.a.1.saturating_sub(CONTEXT));
        code.b.0 = code.b.0.max(code.b.1.saturating_sub(CONTEXT));
    };
    let keep_start = |code: &mut Opcode| {
        code.a.1 = code.a.1.min(code.a.0 + CONTEXT);
        code.b.1 = code.b.1.min(code.b.0 + CONTEXT);
    };
    if let Some(first) = codes.first_mut().filter(|c| c.equal) {
        keep_end(first);
    }
    if let Some(last) = codes.last_mut().filter(|c| c.equal) {
        keep_start(last);
    }
    let (mut groups, mut group) = (Vec::new(), Vec::new());
    for mut code in codes {
        if code.equal && code.a.1 - code.a.0 > 2 * CONTEXT {
            let mut head = code;
            keep_start(&mut head);
            group.push(head);
            groups.push(std::mem::take(&mut group));
            keep_end(&mut code);
        }
        group.push(code);
    }
    let only_equal = group.len() == 1 && group[0].equal;
    if !group.is_empty() && !only_equal {
        groups.push(group);
    }
    groups
}

struct Matcher<'t> {
    a: &'t [String],
    b: &'t [String],
    /// Where each line of `b` occurs, without the popular ones.
    places: HashMap<&'t str, Vec<usize>>,
}

impl<'t> Matcher<'t> {
    fn new(a: &'t [String], b: &'t [String]) -> Self {
        let mut places = HashMap::<&str, Vec<usize>>::new();
        for (i, line) in b.iter().enumerate() {
            places.entry(line).or_default().push(i);
        }
        if b.len() >= 200 {
            let limit = b.len() / 100 + 1;
            places.retain(|_, places| places.len() <= limit);
        }
        Self { a, b, places }
    }

    fn longest(&self, (alo, ahi): (usize, usize), (blo, bhi): (usize, usize)) -> Block {
        let (mut besti, mut bestj, mut best) = (alo, blo, 0);
        let mut lengths = HashMap::<usize, usize>::new();
        for i in alo..ahi {
            let mut next = HashMap::new();
            for &j in self.places.get(self.a[i].as_str()).into_iter().flatten() {
                if j < blo {
                    continue;
                }
                if j >= bhi {
                    break;
                }
                let length = 1 + j.checked_sub(1).and_then(|j| lengths.get(&j)).copied().unwrap_or(0);
                next.insert(j, length);
                if length > best {
                    (besti, bestj, best) = (i + 1 - length, j + 1 - length, length);
                }
            }
            lengths = next;
        }
        // Popular lines beside the block belong to it too.
        while besti > alo && bestj > blo && self.a[besti - 1] == self.b[bestj - 1] {
            (besti, bestj, best) = (besti - 1, bestj - 1, best + 1);
        }
        while besti + best < ahi && bestj + best < bhi && self.a[besti + best] == self.b[bestj + best] {
            best += 1;
        }
        (besti, bestj, best)
    }

    /// All equal blocks in order, adjacent ones joined, and an empty one at the end.
    fn blocks(&self) -> Vec<Block> {
        let mut found = Vec::new();
        let mut todo = vec![((0, self.a.len()), (0, self.b.len()))];
        while let Some((a, b)) = todo.pop() {
            let (i, j, size) = self.longest(a, b);
            if size == 0 {
                continue;
            }
            found.push((i, j, size));
            if a.0 < i && b.0 < j {
                todo.push(((a.0, i), (b.0, j)));
            }
            if i + size < a.1 && j + size < b.1 {
                todo.push(((i + size, a.1), (j + size, b.1)));
            }
        }
        found.sort_unstable();
        let mut joined: Vec<Block> = Vec::new();
        for (i, j, size) in found {
            match joined.last_mut() {
                Some(last) if last.0 + last.2 == i && last.1 + last.2 == j => last.2 += size,
                _ => joined.push((i, j, size)),
            }
        }
        joined.push((self.a.len(), self.b.len(), 0));
        joined
    }
}
