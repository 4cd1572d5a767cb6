//! Which core each worker gets, and which is left for the control thread.

use core_affinity::CoreId;

use crate::model::Workers;

/// Who runs where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorePlan {
    /// One for each worker.
    pub workers: Vec<usize>,
    /// A core without a worker, if there is one.
    pub control: Option<usize>,
}

impl CorePlan {
    /// True when two workers share a core.
    pub fn is_crowded(&self) -> bool {
        let mut cores = self.workers.clone();
        cores.sort_unstable();
        cores.dedup();
        cores.len() < self.workers.len()
    }
}

/// The cores that this process may use.
pub fn allowed() -> Vec<usize> {
    let mut cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    cores.sort_unstable();
    cores
}

/// Moves the calling thread to `core`.
pub fn pin_to(core: usize) {
    core_affinity::set_for_current(CoreId { id: core });
}

/// Chooses cores out of `allowed`. The first is kept for the control thread where that is possible.
///
/// # Errors
/// Says which core is not allowed.
pub fn plan(workers: &Workers, allowed: &[usize]) -> Result<CorePlan, String> {
    let workers: Vec<usize> = match workers {
        Workers::Auto if allowed.len() <= 1 => allowed.to_vec(),
        Workers::Auto => allowed[1..].to_vec(),
        Workers::Count(count) => spread(count.as_usize(), allowed),
        Workers::Cores(cores) => cores.iter().map(|core| core.as_usize()).collect(),
    };
    if let Some(core) = workers.iter().find(|core| !allowed.contains(core)) {
        return Err(format!(
            "/system/workers: core {core} is not one that this process may use ({allowed:?})"
        ));
    }
    if workers.is_empty() {
        return Err("/system/workers: the kernel does not say which cores this process may use".into());
    }
    let control = allowed.iter().copied().find(|core| !workers.contains(core));
    Ok(CorePlan { workers, control })
}

/// `count` cores, the first one last; around again when there are not enough.
fn spread(count: usize, allowed: &[usize]) -> Vec<usize> {
    let first_last = allowed.iter().skip(1).chain(allowed.first()).copied();
    first_last.cycle().take(if allowed.is_empty() { 0 } else { count }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Number;

    fn planned(workers: &Workers, allowed: &[usize]) -> (Vec<usize>, Option<usize>) {
        let plan = plan(workers, allowed).unwrap();
        (plan.workers, plan.control)
    }

    #[test]
    fn control_keeps_a_core_where_there_is_one() {
        assert_eq!(planned(&Workers::Auto, &[0, 1, 2]), (vec![1, 2], Some(0)));
        assert_eq!(planned(&Workers::Auto, &[5]), (vec![5], None));
        assert_eq!(planned(&Workers::Count(Number::new(1)), &[2, 3]), (vec![3], Some(2)));
        assert_eq!(planned(&Workers::Count(Number::new(2)), &[2, 3]), (vec![3, 2], None));
        assert_eq!(planned(&Workers::Cores(vec![Number::new(2)]), &[2, 3]), (vec![2], Some(3)));
    }

    #[test]
    fn more_workers_than_cores_share() {
        let plan = plan(&Workers::Count(Number::new(3)), &[0, 1]).unwrap();
        assert_eq!((plan.workers.clone(), plan.is_crowded()), (vec![1, 0, 1], true));
    }

    #[test]
    fn foreign_cores_are_refused() {
        let why = plan(&Workers::Cores(vec![Number::new(9)]), &[0, 1]).unwrap_err();
        assert!(why.contains("core 9"), "{why}");
    }
}
