import gymnasium as gym
import torch
from torch import nn
from torch.distributions import Categorical

from ignite.engine import Engine, Events

EPISODE_STARTED = Events.EPOCH_STARTED
EPISODE_COMPLETED = Events.EPOCH_COMPLETED
SEED = 543


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine = nn.Linear(4, 64)
        self.head = nn.Linear(64, 2)
        self.log_probs = []
        self.rewards = []

    def forward(self, x):
        return torch.softmax(self.head(torch.relu(self.affine(x))), dim=-1)


def select_action(policy, observation):
    choice = Categorical(policy(torch.from_numpy(observation).float()))
    action = choice.sample()
    policy.log_probs.append(choice.log_prob(action))
    return action.item()


def finish_episode(policy, optimizer, gamma=0.99):
    returns, total = [], 0.0
    for reward in reversed(policy.rewards):
        total = reward + gamma * total
        returns.insert(0, total)
    returns = torch.tensor(returns)
    returns = (returns - returns.mean()) / (returns.std() + 1e-6)
    loss = torch.stack([-log_prob * each for log_prob, each in zip(policy.log_probs, returns)]).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    policy.log_probs.clear()
    policy.rewards.clear()


def main(env, threshold=32.0, max_episodes=200):
    policy = Policy()
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    timesteps = range(10000)

    def run_single_timestep(engine, timestep):
        action = select_action(policy, engine.state.observation)
        engine.state.observation, reward, done, _, _ = env.step(action)
        policy.rewards.append(reward)
        engine.state.ep_reward += reward
        if done:
            engine.terminate_epoch()
            engine.state.timestep = timestep

    trainer = Engine(run_single_timestep)
    trainer.state.running_reward = 10

    @trainer.on(EPISODE_STARTED)
    def reset_environment_state():
        torch.manual_seed(SEED + trainer.state.epoch)
        trainer.state.observation, _ = env.reset(seed=SEED + trainer.state.epoch)
        trainer.state.ep_reward = 0

    @trainer.on(EPISODE_COMPLETED)
    def update_model():
        trainer.state.running_reward = 0.05 * trainer.state.ep_reward + 0.95 * trainer.state.running_reward
        finish_episode(policy, optimizer)

    @trainer.on(EPISODE_COMPLETED(every=5))
    def log_episode():
        print(f"Episode {trainer.state.epoch}\t{trainer.state.ep_reward:.2f}\t{trainer.state.running_reward:.2f}")

    @trainer.on(EPISODE_COMPLETED)
    def should_finish_training():
        if trainer.state.running_reward > threshold:
            print(f"Solved! {trainer.state.running_reward:.4f}, {trainer.state.timestep} time steps")
            trainer.should_terminate = True

    trainer.run(timesteps, max_epochs=max_episodes)
    print(f"{trainer.state.epoch} episodes, {trainer.state.iteration} iterations")


torch.manual_seed(SEED)
main(gym.make("CartPole-v1"))
