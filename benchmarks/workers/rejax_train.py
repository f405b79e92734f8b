"""A whole training run of rejax (JAX), environment included, as one compiled program. Any request runs it once."""

import json
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # read by jax's import

import jax
from rejax import get_algo
from stdio import Clock, serve


def main() -> None:
    settings = json.loads(sys.argv[1])
    total = settings["total_timesteps"]
    algorithm = get_algo(settings.pop("algorithm")).create(**settings, eval_freq=total, skip_initial_evaluation=True)
    algorithm = algorithm.replace(eval_callback=lambda *_: ())
    train = jax.jit(lambda state: algorithm.train(train_state=state)[0])
    state = train(algorithm.init_state(jax.random.PRNGKey(0)))
    state = jax.block_until_ready(train(state))  # a second compilation: the first state held Python numbers

    def answer(_: object) -> dict[str, float]:
        nonlocal state
        clock = Clock()
        state = jax.block_until_ready(train(state))
        return {"count": total, **clock.read()}

    serve(answer)


if __name__ == "__main__":
    main()
