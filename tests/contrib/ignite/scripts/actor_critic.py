from collections import namedtuple

import gymnasium as gym
import torch
from torch import nn
from torch.distributions import Categorical

from ignite.engine import Engine, EventEnum, Events

Saved = namedtuple("Saved", ["log_prob", "value"])


class EpisodeEvents(EventEnum):
    EPISODE_STARTED = "episode_started"
    EPISODE_COMPLETED = "episode_completed"


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine = nn.Linear(4, 64)
        self.action_head = nn.Linear(64, 2)
        self.value_head = nn.Linear(64, 1)
        self.saved, self.rewards = [], []

    def forward(self, x):
        x = torch.relu(self.affine(x))
        return torch.softmax(self.action_head(x), dim=-1), self.value_head(x)


def select_action(model, observation):
    probs, value = model(torch.from_numpy(observation).float())
    choice = Categorical(probs)
    action = choice.sample()
    model.saved.append(Saved(choice.log_prob(action), value))
    return action.item()


def finish_episode(model, optimizer, gamma=0.99):
    returns, total = [], 0.0
    for reward in reversed(model.rewards):
        total = reward + gamma * total
        returns.insert(0, total)
    returns = torch.tensor(returns)
    returns = (returns - returns.mean()) / (returns.std() + 1e-6)
    losses = [
        -log_prob * (each - value.item()) + nn.functional.smooth_l1_loss(value, each.unsqueeze(0))
        for (log_prob, value), each in zip(model.saved, returns)
    ]
    optimizer.zero_grad()
    torch.stack(losses).sum().backward()
    optimizer.step()
    model.saved.clear()
    model.rewards.clear()


def main(env, episodes=60):
    model = Policy()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)

    def run_single_timestep(engine, timestep):
        action = select_action(model, engine.state.observation)
        engine.state.observation, reward, done, _, _ = env.step(action)
        model.rewards.append(reward)
        if done or timestep == 199:
            engine.terminate_epoch()
            engine.state.timestep = timestep

    trainer = Engine(run_single_timestep)
    trainer.register_events(*EpisodeEvents)

    @trainer.on(Events.STARTED)
    def initialize(engine):
        engine.state.running_reward = 10

    @trainer.on(Events.EPOCH_STARTED)
    def start_episode(engine):
        engine.fire_event(EpisodeEvents.EPISODE_STARTED)

    @trainer.on(Events.EPOCH_COMPLETED)
    def complete_episode(engine):
        engine.fire_event(EpisodeEvents.EPISODE_COMPLETED)

    @trainer.on(EpisodeEvents.EPISODE_STARTED)
    def reset_environment_state(engine):
        engine.state.observation, _ = env.reset(seed=engine.state.epoch)

    @trainer.on(EpisodeEvents.EPISODE_COMPLETED)
    def update_model(engine):
        engine.state.running_reward = engine.state.running_reward * 0.99 + engine.state.timestep * 0.01
        finish_episode(model, optimizer)

    @trainer.on(Events.EPOCH_COMPLETED(every=10))
    def log_episode(engine):
        print(f"Episode {engine.state.epoch}\t{engine.state.timestep:5d}\t{engine.state.running_reward:.2f}")

    trainer.run(list(range(10000)), max_epochs=episodes)
    print(trainer.state.epoch, trainer.state.iteration)


torch.manual_seed(543)
main(gym.make("CartPole-v1"))
