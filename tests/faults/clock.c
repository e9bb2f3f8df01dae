/* A wall clock that is ahead by the seconds in the file that CLOCK_AHEAD names; preloaded.

   The monotonic clock stays as it is, as it does where a machine's clock is set. Waits that end at
   an instant of the wall clock are given that instant of the true one. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *file;
static int (*true_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  const char *name = getenv("CLOCK_AHEAD");
  int opened = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
  if (opened >= 0) {
    void *mapped = mmap(NULL, sizeof *file, PROT_READ, MAP_SHARED, opened, 0);
    file = mapped == MAP_FAILED ? NULL : mapped;
    close(opened);
  }
  true_clock = dlsym(RTLD_NEXT, "clock_gettime");
}

static int64_t ahead(void) { return file ? *file : 0; }

int clock_gettime(clockid_t clock, struct timespec *at) {
  /* Others ask before the constructor has run. */
  int failed = true_clock ? true_clock(clock, at) : (int)syscall(SYS_clock_gettime, clock, at);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += ahead();
  return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}

int timespec_get(struct timespec *at, int base) {
  return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, at) ? base : 0;
}

static struct timespec as_it_is(const struct timespec *end) {
  struct timespec found = *end;
  /* Uptimes, which the monotonic clock counts, are shorter than thirty years. */
  if (found.tv_sec > 1000000000) found.tv_sec -= ahead();
  return found;
}

#define WAIT(name, version, parameters, arguments)                             \
  int name parameters {                                                        \
    static int(*next) parameters;                                              \
    /* Where there are several, the first found is one for programs of old. */ \
    if (!next) next = dlvsym(RTLD_NEXT, #name, version);                       \
    if (!next) next = dlsym(RTLD_NEXT, #name);                                 \
    struct timespec found = as_it_is(end);                                     \
    return next arguments;                                                     \
  }

WAIT(pthread_cond_timedwait, "GLIBC_2.3.2",
     (pthread_cond_t *restrict one, pthread_mutex_t *restrict lock,
      const struct timespec *restrict end),
     (one, lock, &found))
WAIT(pthread_cond_clockwait, "GLIBC_2.30",
     (pthread_cond_t *restrict one, pthread_mutex_t *restrict lock, clockid_t clock,
      const struct timespec *restrict end),
     (one, lock, clock, &found))
WAIT(pthread_mutex_timedlock, "GLIBC_2.34",
     (pthread_mutex_t *restrict one, const struct timespec *restrict end), (one, &found))
WAIT(cnd_timedwait, "GLIBC_2.28",
     (cnd_t *restrict one, mtx_t *restrict lock, const struct timespec *restrict end),
     (one, lock, &found))
WAIT(mtx_timedlock, "GLIBC_2.28", (mtx_t *restrict one, const struct timespec *restrict end),
     (one, &found))
WAIT(sem_timedwait, "GLIBC_2.34", (sem_t *restrict one, const struct timespec *restrict end),
     (one, &found))
