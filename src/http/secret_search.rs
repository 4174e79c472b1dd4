//! Which of many teams' secrets is tried first, and how many are tried.
//!
//! The hook that a request's headers claim, and the repositories that its body names, are not proven. They only decide the
//! order: a delivery that was right once is found at the first try. Trying all secrets on a wrong signature would let a
//! stranger keep the service busy, so that the bytes which are hashed for it have a limit for all requests together.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::delivery::{Claims, Keyring, TeamKey};
use crate::team::Team;
use crate::template::Templates;

/// So many secrets are tried without counting.
pub(super) const FEW: usize = 8;
/// Bytes hashed in a second for signatures that none of the likely secrets matches: some 150 ms of one core.
const BYTES_PER_SECOND: i64 = 256 << 20;
/// Bytes that may be hashed at once after a quiet time.
const BURST: i64 = 1 << 30;
/// Bodies up to this size have an allowance of their own: a flood of large ones does not touch them.
const SMALL: u64 = 256 << 10;
/// Hooks and repositories that are remembered. Only authenticated deliveries add one.
const MAX_KNOWN: usize = 4096;

/// What earlier deliveries and the templates say about a request.
#[derive(Debug)]
pub(super) struct SecretSearch {
    hasher: RandomState,
    known: Mutex<HashMap<u64, Team>>,
    /// For bodies of at most [`SMALL`] bytes, and for all others.
    allowances: Mutex<[Allowance; 2]>,
}

#[derive(Debug)]
struct Allowance {
    /// Negative as long as more was hashed than earned.
    bytes: i64,
    since: Instant,
}

impl Default for SecretSearch {
    fn default() -> Self {
        let allowance = || Allowance { bytes: BURST, since: Instant::now() };
        let allowances = Mutex::new([allowance(), allowance()]);
        Self { hasher: RandomState::new(), known: Mutex::default(), allowances }
    }
}

impl SecretSearch {
    /// The secrets of the teams that the request's claims point at, likeliest first, at most [`FEW`]. The iterator looks
    /// into the body only if the hook does not decide.
    pub(super) fn likely<'k>(
        &'k self,
        claims: &'k Claims,
        keyring: &'k Keyring,
        templates: &'k Templates,
    ) -> impl Iterator<Item = &'k TeamKey> {
        let by_hook = self.team_of_hook(claims);
        let hooks: &[TeamKey] = by_hook.as_ref().map(|team| keyring.of_team(team)).unwrap_or_default();
        let by_repository = move || self.teams_of_repositories(claims, templates).into_iter();
        let repositories = std::iter::once_with(by_repository).flatten();
        let others = repositories.filter(move |team| by_hook.as_ref() != Some(team));
        hooks.iter().chain(others.flat_map(|team| keyring.of_team(&team))).take(FEW)
    }

    /// The team whose secret has proven a delivery of the claimed hook.
    fn team_of_hook(&self, claims: &Claims) -> Option<Team> {
        let hook = self.hash(("hook", claims.hook()?.id));
        lock(&self.known).get(&hook).cloned()
    }

    /// The teams whose secrets have proven a delivery of the named repositories, and then the teams with templates for them.
    fn teams_of_repositories(&self, claims: &Claims, templates: &Templates) -> Vec<Team> {
        let names = claims.repositories();
        let hashes: Vec<u64> = names.iter().map(|name| self.hash(("repository", *name))).collect();
        let mut teams: Vec<Team> = Vec::new();
        {
            let known = lock(&self.known);
            teams.extend(hashes.iter().filter_map(|hash| known.get(hash).cloned()));
        }
        let sets = || templates.iter().filter_map(|(team, in_force)| Some((team, &in_force.templates.as_ref()?.set)));
        let named = sets().filter(|(_, set)| names.iter().any(|name| set.names_repository(name)));
        let others = sets().filter(|(_, set)| set.takes_any_repository());
        teams.extend(named.chain(others).take(FEW).map(|(team, _)| team.clone()));
        let mut seen = HashSet::new();
        teams.retain(|team| seen.insert(team.clone()));
        teams
    }

    /// Remembers whose secret matched, unless the claimed hook said so.
    pub(super) fn learn(&self, claims: &Claims, team: &Team) {
        if self.team_of_hook(claims).as_ref() == Some(team) {
            return;
        }
        let hook = claims.hook().map(|hook| self.hash(("hook", hook.id)));
        let names = claims.repositories().into_iter().map(|name| self.hash(("repository", name)));
        let mut hashes: Vec<u64> = hook.into_iter().chain(names).collect();
        let mut known = lock(&self.known);
        hashes.retain(|hash| known.get(hash) != Some(team));
        if known.len() + hashes.len() > MAX_KNOWN {
            known.clear();
        }
        known.extend(hashes.into_iter().map(|hash| (hash, team.clone())));
    }

    fn hash(&self, claim: impl Hash) -> u64 {
        self.hasher.hash_one(claim)
    }

    /// Whether `bytes` may be hashed now for a signature that may be wrong; they are counted. `size` is that of the body. More
    /// than is left may be hashed once, so that no delivery is too large; then nothing may until as much time has passed.
    pub(super) fn allows(&self, size: u64, bytes: u64, now: Instant) -> bool {
        let mut allowances = lock(&self.allowances);
        let [small, large] = &mut *allowances;
        let allowance = if size <= SMALL { small } else { large };
        let passed = now.saturating_duration_since(allowance.since).as_millis();
        let earned = i64::try_from(passed).unwrap_or(i64::MAX).saturating_mul(BYTES_PER_SECOND / 1000);
        *allowance = Allowance { bytes: allowance.bytes.saturating_add(earned).min(BURST), since: now };
        let is_allowed = allowance.bytes > 0;
        if is_allowed {
            allowance.bytes = allowance.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        is_allowed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn limits_the_bytes_that_wrong_signatures_cost() {
        let search = SecretSearch::default();
        let now = Instant::now();
        let tenth = BURST.unsigned_abs() / 10 + 1;
        assert_eq!((0..100).filter(|_| search.allows(1 << 20, tenth, now)).count(), 10);
        assert!(!search.allows(1 << 20, 1, now), "nothing is left");
        let later = now + Duration::from_secs(2);
        assert!(search.allows(1 << 20, 10 * BURST.unsigned_abs(), later), "once, more than is left");
        assert!(!search.allows(1 << 20, 1, later + Duration::from_secs(30)), "but it must be earned");
        assert!(search.allows(SMALL, 1, later + Duration::from_secs(30)), "a small body");
        assert!(search.allows(1 << 20, 1, later + Duration::from_secs(60)));
    }
}
